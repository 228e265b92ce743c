"""Why a transform job failed: by what it read and what its container made of it, or by what the service lacked.

`FailureReason` is a sentence with no code but its first word; which words there are is known from
documentation and from the field.
"""

import re

# Nothing that smaller objects could change: no instances, a fault of the service, a container that never came up,
# files or images that may not be read.
_NOT_THE_DATA = re.compile(
    r"capacity|internal ?(server|service)? ?(error|failure)|unable to provision|insufficient|throttl|unavailable"
    r"|health ?check|\bping\b|pull|image|access ?denied|not authorized|forbidden|\brole\b|no s3 objects|bucket",
    re.IGNORECASE,
)
_THE_DATA = re.compile(
    r"client ?error|algorithm ?error|payload|bad request|\b4\d\d\b|parse|decod|time[- ]?d?[- ]?out",
    re.IGNORECASE,
)


def may_be_the_data(reason: str, *, others_succeeded: bool) -> bool:
    """Whether a record may be what broke its object, so that cutting the object would tell which.

    A job of which other objects have succeeded had all that it needed: there the reason has to say otherwise.
    """
    if _NOT_THE_DATA.search(reason):
        return False
    return others_succeeded or bool(_THE_DATA.search(reason))
