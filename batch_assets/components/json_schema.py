"""The JSON schema of a component's attributes, as editors and `dg check yaml` use it."""

from typing import Any


def allow_templates(schema: Any) -> Any:
    """Let a `{{ template }}` stand for any number, boolean or choice of the schema."""
    if isinstance(schema, list):
        return [allow_templates(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {key: allow_templates(value) for key, value in schema.items()}
    scalar = (
        changed.get("type") in ("integer", "number", "boolean") or "enum" in changed or "const" in changed
    )
    if not scalar:
        return changed
    kept = {key: changed.pop(key) for key in ("title", "description", "default") if key in changed}
    # Not anyOf: of that, a checker can only say that the value fits neither.
    return kept | {"if": {"type": "string", "pattern": r"\{\{.*\}\}"}, "then": {}, "else": changed}
