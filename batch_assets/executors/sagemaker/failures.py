"""Why a transform job failed: by what it read and what its container made of it, or by what the service lacked.

`FailureReason` is a sentence with no code but its first word; which words there are is known from
documentation and from the field.
"""

import re

from batch_assets.executors.aws.passing import is_lack, without_names

# The container was there and answered, so what it says of itself is no fault of the service.
_OF_THE_MODEL = re.compile(
    r"from (the )?(model|primary|container)|model ?error|container (answered|returned)", re.IGNORECASE
)
# Nothing that smaller objects could change: a container that never came up, files or images that may not be read.
_NOT_THE_DATA = re.compile(
    r"insufficient|health ?check|\bping\b|\bpull|\bimage\b.*(not|exist|denied)|access ?denied|not authorized|forbidden"
    r"|\b(assume|execution|iam|pass)\b.*\brole\b|\brole\b.*(assume|exist|trust)|no s3 objects"
    r"|no ?such ?bucket|\bbucket\b.*(exist|access|region|found)",
    re.IGNORECASE,
)
_THE_DATA = re.compile(
    r"client ?error|algorithm ?error|payload|bad request|\b[45]\d\d\b|server error|parse|decod|time[- ]?d?[- ]?out",
    re.IGNORECASE,
)


def may_be_the_data(reason: str, *, began: bool) -> bool:
    """Whether a record may be what broke its object, so that cutting the object would tell which.

    `began`: the container had come up, or other objects have succeeded, so that the job had all that it
    needed: there the reason has to say otherwise.
    """
    words = without_names(reason)
    if _OF_THE_MODEL.search(words):
        return True
    if is_lack(reason) or _NOT_THE_DATA.search(words):
        return False
    return began or bool(_THE_DATA.search(words))
