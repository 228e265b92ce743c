"""A `defs.yaml`'s attributes as written, and their JSON schema, as editors and `dg check yaml` use it."""

from typing import Any, ClassVar

import pydantic

from batch_assets.settings.base import Settings


class WrittenAttributes(pydantic.BaseModel):
    """Attributes before `{{ env.X }}` is filled in; subclasses name the settings that are made of them.

    Takes anything, so that wrong fields are refused in one place and in our words; the schema is the settings'.
    """

    model_config = pydantic.ConfigDict(extra="allow")
    settings_model: ClassVar[type[Settings]]

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return _allow_templates(cls.settings_model.model_json_schema(*args, **kwargs))


def _allow_templates(schema: Any) -> Any:
    """Let a `{{ template }}` stand for any number, boolean or choice of the schema."""
    if isinstance(schema, list):
        return [_allow_templates(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {key: _allow_templates(value) for key, value in schema.items()}
    scalar = (
        changed.get("type") in ("integer", "number", "boolean") or "enum" in changed or "const" in changed
    )
    if not scalar:
        return changed
    kept = {key: changed.pop(key) for key in ("title", "description", "default") if key in changed}
    # Not anyOf: of that, a checker can only say that the value fits neither.
    return kept | {"if": {"type": "string", "pattern": r"\{\{.*\}\}"}, "then": {}, "else": changed}
