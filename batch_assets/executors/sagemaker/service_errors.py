"""What SageMaker's refusals mean: wait, find out, or tell a person.

The classes of errors are those of the service model; their messages are seen in the field and
in its documentation.
"""

import re

from batch_assets.executors.aws.errors import FORBIDDEN, error_code, error_message, refusal
from batch_assets.settings.sagemaker import SageMakerExecutorSettings

IN_USE = "ResourceInUse"
NOT_FOUND = ("ResourceNotFound", "ResourceNotFoundException")
# "The account-level service limit 'ml.m5.large for transform job usage' is 0 Instances, with current utilization …"
_LIMIT = re.compile(r"limit '(?P<name>[^']+)' is (?P<limit>\d+)")


def is_not_found(error: Exception) -> bool:
    """Whether the service does not know what it was asked about: it also says so in a ValidationException."""
    code, message = error_code(error), error_message(error).lower()
    return code in NOT_FOUND or (code == "ValidationException" and "could not find" in message)


def explain_refusal(error: Exception, options: SageMakerExecutorSettings, region: str) -> Exception:
    """What a failed CreateTransformJob means: SlotsFull, Unanswered or SubmissionRefused."""
    code, message = error_code(error), error_message(error)
    limit = _LIMIT.search(message) if code == "ResourceLimitExceeded" else None
    too_few = limit is not None and int(limit["limit"]) < options.instance_count
    step = "correct it, then `batch-assets run` goes on; nothing is uploaded twice"
    if limit and too_few:
        step = (
            f"the quota {limit['name']!r} in {region} is {limit['limit']}, and a job takes {options.instance_count}: "
            "request an increase in Service Quotas (Amazon SageMaker), or name another executor.instance_type"
        )
    elif code in FORBIDDEN and "PassRole" in message:
        step = f"allow iam:PassRole on the role of model {options.model_name} to whoever runs this pipeline"
    elif code in FORBIDDEN:
        step = "allow sagemaker:CreateTransformJob to whoever runs this pipeline"
        if options.tags:
            step += ", and sagemaker:AddTags for executor.tags"
    elif is_not_found(error):
        step = f"name a model that SageMaker has in {region}, in executor.model_name"
    elif "instance type" in message.lower() or "instancetype" in message.lower():
        step = f"name an instance type that transform jobs have in {region}, in executor.instance_type"
    elif "s3" in message.lower() or "bucket" in message.lower():
        step = (
            f"put executor.staging into a bucket of region {region} that the model's role may read and write"
        )
    refuses = f"SageMaker refuses transform jobs of model {options.model_name}"
    return refusal(error, refuses, step, for_good=too_few)
