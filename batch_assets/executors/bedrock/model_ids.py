"""What a model is called: the bare id in an ARN, an inference profile or an id."""

import re

# Profiles of several regions are named after the geography that they stay in.
_GEOGRAPHY = re.compile(r"^(us|us-gov|eu|apac|jp|au|ca|global)\.(?=[a-z0-9]+\.)")


def model_name(model_id: str) -> str:
    """An id without the ARN around it: `us.anthropic.claude-sonnet-4-20250514-v1:0`.

    Of an application's own inference profile that is an opaque string.
    """
    if not model_id.startswith("arn:"):
        return model_id
    kind, _, name = model_id.split(":", 5)[-1].partition("/")
    # custom-model/<base model>/<id>
    return name.split("/", 1)[0] if kind == "custom-model" else name


def base_model_id(model_id: str) -> str:
    """The model itself, without ARN and geography: `anthropic.claude-sonnet-4-20250514-v1:0`."""
    return _GEOGRAPHY.sub("", model_name(model_id))
