"""What an AWS error is: its code, its words, and whether to wait, to find out, or to tell a person.

What a service's own refusals mean, and what to do about them, is in that service's folder.
"""

from typing import Any

from batch_assets.errors import BatchAssetsError, ConfigurationError, StorageError, SubmissionRefused
from batch_assets.executors.deferred import Unanswered

SLOW_DOWN = frozenset(
    {"ServiceQuotaExceededException", "ThrottlingException", "ThrottledException", "Throttling",
     "TooManyRequestsException", "RequestLimitExceeded", "LimitExceededException", "ResourceLimitExceeded"}
)  # fmt: skip
NO_ANSWER = frozenset(
    {"InternalServerException", "InternalFailure", "InternalServerError", "ServiceUnavailable",
     "ServiceUnavailableException", "RequestTimeout", "RequestTimeoutException", "ServerException"}
)  # fmt: skip
EXPIRED = frozenset(
    {"ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException", "InvalidSignatureException"}
)
FORBIDDEN = frozenset({"AccessDeniedException", "AccessDenied"})
NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "SSOTokenLoadError")
RENEW = "renew the AWS credentials, then `batch-assets run` goes on"


def error_code(error: Exception) -> str:
    """AWS's name of an error; empty where there was no answer at all."""
    response: Any = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def error_message(error: Exception) -> str:
    """What AWS says, on one line."""
    response: Any = getattr(error, "response", None) or {}
    return " ".join(str(response.get("Error", {}).get("Message") or error).split())


def status_code(error: Exception) -> int:
    """The HTTP status of an error; 0 where there was no answer."""
    response: Any = getattr(error, "response", None) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def is_slow_down(error: Exception) -> bool:
    """Whether the service takes no more now: its quota is used up, or it asks to slow down."""
    return error_code(error) in SLOW_DOWN or status_code(error) == 429


def is_unanswered(error: Exception) -> bool:
    """Whether a call may or may not have been carried out."""
    code, status = error_code(error), status_code(error)
    return not code or code in NO_ANSWER or status >= 500 or status == 0


def cannot_ask(error: Exception, service: str, actions: str) -> Exception:
    """What a failed question means: Unanswered, or for a person to mend. `actions` are those to allow."""
    if error_code(error) in FORBIDDEN | EXPIRED:
        return SubmissionRefused(
            f"{service} refuses to tell of its jobs: {error_code(error)}: {error_message(error)}; allow {actions}, or "
            "renew the credentials"
        )
    if type(error).__name__ in NO_CREDENTIALS:
        return unreachable(error)
    return Unanswered(error_message(error))


def unreachable(error: Exception) -> BatchAssetsError:
    """What a call means that AWS has never answered."""
    if type(error).__name__ in NO_CREDENTIALS:
        return ConfigurationError(
            f"AWS: {error}; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return StorageError(
        f"AWS: {error_message(error)}; check the network and AWS_ENDPOINT_URL, then try again"
    )
