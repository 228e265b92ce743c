"""What Bedrock's refusals mean: wait, find out, or tell a person.

The classes of errors are those of the service model; their messages are seen in the field and
in its documentation.
"""

import re

from batch_assets.errors import SubmissionRefused
from batch_assets.executors.aws.errors import (
    FORBIDDEN,
    RENEW,
    common_step,
    error_code,
    error_message,
    is_slow_down,
    is_unanswered,
    may_be_renewed,
    told,
)
from batch_assets.executors.deferred import SlotsFull, Unanswered

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
    if may_be_renewed(error):
        return SlotsFull(f"{told(error)}; {RENEW}")
    if is_slow_down(error):
        return SlotsFull(told(error))
    if is_unanswered(error):
        return Unanswered(told(error))
    next_step = "correct it, then `batch-assets run` goes on; nothing is uploaded twice"
    if step := common_step(error):
        next_step = step
    elif "not authorized to perform this action" in message and "support case" in message:
        next_step = (
            f"the account is not entitled to batch inference with {model_id} in {region}, whatever its quotas say: "
            "open a support case with AWS, then `batch-assets run` goes on"
        )
    elif code in FORBIDDEN and "PassRole" in message:
        next_step = f"allow iam:PassRole on {role_arn} to whoever runs this pipeline"
    elif code in FORBIDDEN:
        next_step = (
            f"allow bedrock:CreateModelInvocationJob and iam:PassRole on {role_arn}, and request access to "
            f"{model_id} in {region}"
        )
    elif code == "ResourceNotFoundException":
        next_step = f"name a model that batch inference has in {region}, in executor.model_id"
    elif "region" in message.lower() or "bucket" in message.lower():
        next_step = (
            f"put executor.staging into a bucket of region {region} that {role_arn} may read and write"
        )
    return SubmissionRefused(f"Bedrock refuses jobs for {model_id}: {told(error)}; {next_step}")
