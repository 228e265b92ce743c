"""What Bedrock's refusals mean: wait, find out, or tell a person.

The classes of errors are those of the service model; their messages are seen in the field and
in its documentation.
"""

from typing import Any

from batch_assets.errors import SubmissionRefused
from batch_assets.executors.deferred import SlotsFull, Unanswered

SLOW_DOWN = frozenset(
    {"ServiceQuotaExceededException", "ThrottlingException", "ThrottledException", "Throttling",
     "TooManyRequestsException", "RequestLimitExceeded", "LimitExceededException"}
)  # fmt: skip
CONFLICT = "ConflictException"
_NO_ANSWER = frozenset(
    {"InternalServerException", "InternalFailure", "InternalServerError", "ServiceUnavailable",
     "ServiceUnavailableException", "RequestTimeout", "RequestTimeoutException"}
)  # fmt: skip


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


def explain_refusal(error: Exception, model_id: str, role_arn: str, region: str) -> Exception:
    """What a failed CreateModelInvocationJob means: SlotsFull, Unanswered or SubmissionRefused."""
    code, message, status = error_code(error), error_message(error), status_code(error)
    if code in SLOW_DOWN or status == 429:
        return SlotsFull(message)
    if not code or code in _NO_ANSWER or status >= 500 or status == 0:
        return Unanswered(message)
    next_step = "correct it, then `batch-assets run` goes on; nothing is uploaded twice"
    if "not authorized to perform this action" in message and "support case" in message:
        next_step = (
            f"the account is not entitled to batch inference with {model_id} in {region}, whatever its quotas say: "
            "open a support case with AWS, then `batch-assets run` goes on"
        )
    elif code in ("AccessDeniedException", "AccessDenied") and "PassRole" in message:
        next_step = f"allow iam:PassRole on {role_arn} to whoever runs this pipeline"
    elif code in ("AccessDeniedException", "AccessDenied"):
        next_step = (
            f"allow bedrock:CreateModelInvocationJob and iam:PassRole on {role_arn}, and request access to "
            f"{model_id} in {region}"
        )
    elif code in (
        "ExpiredTokenException",
        "ExpiredToken",
        "UnrecognizedClientException",
        "InvalidSignatureException",
    ):
        next_step = "renew the AWS credentials, then `batch-assets run` goes on"
    elif code == "ResourceNotFoundException":
        next_step = f"name a model that batch inference has in {region}, in executor.model_id"
    elif "region" in message.lower() or "bucket" in message.lower():
        next_step = (
            f"put executor.staging into a bucket of region {region} that {role_arn} may read and write"
        )
    return SubmissionRefused(f"Bedrock refuses jobs for {model_id}: {code}: {message}; {next_step}")
