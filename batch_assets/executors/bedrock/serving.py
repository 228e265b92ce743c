"""Whether Bedrock answers single calls of a model: some are for batch jobs, or behind inference profiles, alone.

The calls themselves are made in `on_demand.py`.
"""

import re
from typing import Any

from batch_assets.errors import ConfigurationError, SubmissionRefused
from batch_assets.executors.aws.errors import (
    FORBIDDEN,
    NO_CREDENTIALS,
    RENEW,
    common_step,
    error_code,
    error_message,
    may_be_renewed,
    told,
)
from batch_assets.executors.bedrock.model_ids import base_model_id, model_name
from batch_assets.executors.service_jobs import Unanswered
from batch_assets.plain_text import plain_logger

# Seen: "Invocation of model ID … with on-demand throughput isn’t supported. Retry your request with the ID or ARN of an
# inference profile that contains this model.", "The provided model identifier is invalid.", "Operation not allowed" of
# accounts that may not call the model. A ValidationException says the same code of a record that is wrong.
_OF_THE_MODEL = re.compile(r"on-demand throughput|model identifier|operation not allowed", re.IGNORECASE)
OTHER_WAYS = (
    "name the id of an inference profile of this model in executor.model_id (it counts as another model, so what is "
    "embedded already is embedded anew), or add records until a job can be made of them; executor.remainder: pool puts "
    "those of all shards into one"
)
logger = plain_logger(__name__)


def check_single_calls(client: Any, model_id: str, records: int, least: int) -> None:
    """Raise ConfigurationError where the service says that it answers no single calls of the model.

    Where it does not say, the first call will tell.
    """
    if model_name(model_id) != base_model_id(model_id) or not _is_foundation(model_id):
        return  # a profile, or a model of one's own, has ways of its own to be called
    try:
        details = client.get_foundation_model(modelIdentifier=model_id)["modelDetails"]
    except Exception as error:  # no permission, no such call here
        logger.debug("model %s: %s", model_id, error_message(error))
        return
    ways = details.get("inferenceTypesSupported") or ["ON_DEMAND"]
    if "ON_DEMAND" not in ways:
        raise ConfigurationError(
            f"executor.model_id: {records:,} records lie in shards of fewer than {least:,}, so they are no batch jobs, "
            f"and Bedrock serves {model_id} by {', '.join(ways)} alone, not for single calls; {OTHER_WAYS}"
        )


def _is_foundation(model_id: str) -> bool:
    return not model_id.startswith("arn:") or ":foundation-model/" in model_id


def explain_call(error: Exception, model_id: str) -> SubmissionRefused | Unanswered | None:
    """What a failed call says of the model or of whoever calls, the same for all records; None: it is of the record."""
    code, message = error_code(error), error_message(error)
    if may_be_renewed(error):
        return Unanswered(f"{told(error)}; {RENEW}")
    if step := common_step(error):
        next_step = step
    elif code in FORBIDDEN:
        next_step = f"allow bedrock:InvokeModel on {model_id}, and request access to the model"
    elif type(error).__name__ in NO_CREDENTIALS:
        next_step = RENEW
    elif code == "ResourceNotFoundException" or (
        code == "ValidationException" and _OF_THE_MODEL.search(message)
    ):
        next_step = f"these are fewer records than a batch job takes, so each is a call: {OTHER_WAYS}"
    else:
        return None
    return SubmissionRefused(
        f"Bedrock refuses calls of {model_id}: {told(error)}; {next_step}. The records wait, and no attempt is spent"
    )
