"""What Bedrock's refusals mean: wait, find out, or tell a person.

The classes of errors are those of the service model; their messages are seen in the field and
in its documentation.
"""

import re

from batch_assets.executors.aws.errors import FORBIDDEN, error_code, error_message, refusal

CONFLICT = "ConflictException"
# At times a name that is taken is a ValidationException too: "The batch job name … is already in use."
_NAME_TAKEN = re.compile(
    r"(?=.*\bjob(?:\b.*\b)?name)(?=.*\b(?:already exists|(?:already|currently|is) in use)\b)", re.IGNORECASE
)


def is_name_taken(error: Exception) -> bool:
    """Whether a CreateModelInvocationJob has failed since there is a job of that name."""
    code = error_code(error)
    return code == CONFLICT or (
        code == "ValidationException" and _NAME_TAKEN.match(error_message(error)) is not None
    )


def explain_refusal(error: Exception, model_id: str, role_arn: str, region: str) -> Exception:
    """What a failed CreateModelInvocationJob means: SlotsFull, Unanswered or SubmissionRefused."""
    code, message = error_code(error), error_message(error)
    step = "correct it, then `batch-assets run` goes on; nothing is uploaded twice"
    if "not authorized to perform this action" in message and "support case" in message:
        step = (
            f"the account is not entitled to batch inference with {model_id} in {region}, whatever its quotas say: "
            "open a support case with AWS, then `batch-assets run` goes on"
        )
    elif code in FORBIDDEN and "PassRole" in message:
        step = f"allow iam:PassRole on {role_arn} to whoever runs this pipeline"
    elif code in FORBIDDEN:
        step = (
            f"allow bedrock:CreateModelInvocationJob and iam:PassRole on {role_arn}, and request access to "
            f"{model_id} in {region}"
        )
    elif code == "ResourceNotFoundException":
        step = f"name a model that batch inference has in {region}, in executor.model_id"
    elif "region" in message.lower() or "bucket" in message.lower():
        step = f"put executor.staging into a bucket of region {region} that {role_arn} may read and write"
    return refusal(error, f"Bedrock refuses jobs for {model_id}", step)
