"""What a service cannot do now and may do in a while: by the code that it gives, and by its words.

What to do then is for whoever asks: a record goes again, a job is no fault of its data, nor of the settings.
"""

import re

from batch_assets.executors.aws.errors import NO_ANSWER, SLOW_DOWN

# Names, of which any word may be a part: of objects, buckets and roles, and what is quoted.
_NAMES = re.compile(r"s3://\S+|\barn:\S+|(?<!\w)'[^']*'(?!\w)|\"[^\"]*\"")
# The service itself has not enough of something, or has failed.
_LACKS = re.compile(
    r"capacity|unable to provision|throttl|too ?many ?requests|rate exceeded|slow ?down|unavailable"
    r"|internal ?((server|service) ?)?(error|failure|exception)|internal ?server|try again later"
    r"|\bHTTP (408|429|5\d\d)\b",
    re.IGNORECASE,
)
# It took too long, now, with these records.
_LATE = re.compile(r"time[- ]?d?[- ]?out|not ?ready|\bexpired\b|wait before trying again", re.IGNORECASE)


def without_names(text: str) -> str:
    """The words of a service, without the names in them."""
    return _NAMES.sub("", text)


def is_lack(text: str) -> bool:
    """Whether the service says that it has not enough now, or has failed itself."""
    return bool(_LACKS.search(without_names(text)))


def is_passing_status(status: int) -> bool:
    """Whether an HTTP status says so."""
    return status in (408, 429) or 500 <= status < 600


def is_passing_code(code: str) -> bool:
    """Whether a code says so: a status, or the name of an error."""
    if code.isdecimal():
        return is_passing_status(int(code))
    return code in SLOW_DOWN or code in NO_ANSWER or bool(_LACKS.search(code) or _LATE.search(code))


def is_passing(text: str) -> bool:
    """Whether the words of a service say so."""
    return is_lack(text) or bool(_LATE.search(without_names(text)))
