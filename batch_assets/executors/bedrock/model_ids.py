"""What a model is called: the bare id in an ARN, an inference profile or an id."""

import re

# Profiles of several regions are named after the geography that they stay in.
_GEOGRAPHY = re.compile(r"^(us|us-gov|eu|apac|jp|au|ca|global)\.(?=[a-z0-9]+\.)")
# Of a resource of these kinds the id does not tell which model is behind it.
_OPAQUE = frozenset(
    {"application-inference-profile", "provisioned-model", "imported-model", "custom-model-deployment"}
)


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


def names_same_model(one: str, other: str) -> bool | None:
    """Whether two ways to name a model name the same; None where they cannot be compared, since one is opaque."""
    if all(":custom-model/" in each for each in (one, other)):
        return one == other  # of one base there are many
    if base_model_id(one) == base_model_id(other):
        return True
    return False if _opaque_kind(one) == _opaque_kind(other) else None


def _opaque_kind(model_id: str) -> str | None:
    """What kind of resource hides the model (empty: no model is named); None where its name is to be read."""
    if not model_id:
        return ""
    kind = model_id.split(":", 5)[-1].partition("/")[0] if model_id.startswith("arn:") else ""
    return kind if kind in _OPAQUE else None
