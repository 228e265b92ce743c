"""What an AWS error is: its code, its words, and whether to wait, to find out, or to tell a person.

What a service's own refusals mean, and what to do about them, is in that service's folder.
"""

from typing import Any

from batch_assets.errors import BatchAssetsError, ConfigurationError, StorageError, SubmissionRefused
from batch_assets.executors.service_jobs import SlotsFull, Unanswered
from batch_assets.storage.credentials import are_renewable, renew_credentials

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
    | {"InvalidClientTokenId", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
)
CLOCK = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
RUN_OUT = frozenset({"ExpiredTokenException", "ExpiredToken"})
FORBIDDEN = frozenset({"AccessDeniedException", "AccessDenied"})
# Raised by botocore itself, before anything is sent.
NEVER_SENT = frozenset(
    {"ParamValidationError", "InvalidRegionError", "UnknownEndpointError", "EndpointProviderError"}
)
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


def told(error: Exception) -> str:
    """What AWS says: its code and its words."""
    return ": ".join(part for part in (error_code(error), error_message(error)) if part)


def common_step(error: Exception) -> str | None:
    """What to do about a refusal whatever was asked of whichever service; None where that depends."""
    code, message = error_code(error), error_message(error)
    # Elsewhere than at S3 a wrong clock looks like a wrong signature.
    if code in CLOCK or "Signature expired" in message or "Signature not yet current" in message:
        return "set this machine's clock, best by NTP, then `batch-assets run` goes on"
    if code in EXPIRED:
        return RENEW
    if code in FORBIDDEN and "kms:" in message:
        return "allow that on the KMS key, in the key's policy too, then `batch-assets run` goes on"
    return None


def status_code(error: Exception) -> int:
    """The HTTP status of an error; 0 where there was no answer."""
    response: Any = getattr(error, "response", None) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def is_slow_down(error: Exception) -> bool:
    """Whether the service takes no more now: its quota is used up, or it asks to slow down."""
    return error_code(error) in SLOW_DOWN or status_code(error) == 429


def is_unanswered(error: Exception) -> bool:
    """Whether a call may or may not have been carried out."""
    if type(error).__name__ in NEVER_SENT:
        return False
    code, status = error_code(error), status_code(error)
    return not code or code in NO_ANSWER or status >= 500 or status == 0


def may_be_renewed(error: Exception) -> bool:
    """Whether the credentials have run out, and may be renewed where they come from: the next call reads them again."""
    if error_code(error) not in RUN_OUT or not are_renewable():
        return False
    renew_credentials()
    return True


def refusal(error: Exception, refuses: str, step: str, *, for_good: bool = False) -> Exception:
    """What a failed call that was to start something means: SlotsFull, Unanswered or SubmissionRefused.

    `refuses` says who refuses what, `step` what to do about it where that does not depend on the error alone.
    `for_good`: it asks to wait, and waiting would change nothing.
    """
    if may_be_renewed(error):
        return SlotsFull(f"{told(error)}; {RENEW}")
    if is_slow_down(error) and not for_good:
        return SlotsFull(told(error))
    if is_unanswered(error) and not for_good:
        return Unanswered(told(error))
    return SubmissionRefused(f"{refuses}: {told(error)}; {common_step(error) or step}")


def cannot_ask(error: Exception, service: str, actions: str) -> Exception:
    """What a failed question means: Unanswered, or for a person to mend. `actions` are those to allow."""
    if may_be_renewed(error):
        return Unanswered(f"{told(error)}; {RENEW}")
    step = common_step(error) or (f"allow {actions}" if error_code(error) in FORBIDDEN else None)
    if step is not None:
        return SubmissionRefused(f"{service} refuses to tell of its jobs: {told(error)}; {step}")
    if type(error).__name__ in (*NO_CREDENTIALS, *NEVER_SENT):
        return unreachable(error)
    return Unanswered(told(error))


def unreachable(error: Exception) -> BatchAssetsError:
    """What a call means that AWS has never answered."""
    if type(error).__name__ in NO_CREDENTIALS:
        return ConfigurationError(
            f"AWS: {error}; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if type(error).__name__ in NEVER_SENT:
        return ConfigurationError(f"AWS: {error_message(error)}; correct the setting that it names")
    return StorageError(
        f"AWS: {error_message(error)}; check the network and AWS_ENDPOINT_URL, then try again"
    )
