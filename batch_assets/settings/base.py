"""What all settings share: no unknown field, no change afterwards, sizes as people write them."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

import pydantic

_UNITS = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip


def parse_size(value: Any) -> Any:
    """Turn `200MB` (10^6) or `16MiB` (2^20) into bytes; other values pass unchanged."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", value)
    if match is None or match[2].lower() not in _UNITS:
        raise ValueError("write a size such as 200MB or 16MiB")
    size = float(match[1]) * _UNITS[match[2].lower()]
    if math.isinf(size):
        raise ValueError("no size is so large; write one such as 200MB or 16MiB")
    return int(size)


Bytes = Annotated[int, pydantic.BeforeValidator(parse_size, json_schema_input_type=int | str)]


class Settings(pydantic.BaseModel):
    """Base of all settings: unknown fields are refused, values are frozen."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _without_nul(cls, value: Any) -> Any:
        # No path and no database takes one, and each would say so in its own way, late.
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and "\0" in text:
                raise ValueError("no text may hold a NUL character; remove it")
        return value


def by_type(models: Mapping[str, type[Settings]], default: str | None = None) -> pydantic.Discriminator:
    """How `type` tells kinds of settings apart, each tagged with its own; `default` where nothing is said.

    Pydantic's own discriminator takes no validator of all fields, which Settings have.
    """

    def type_of(value: Any) -> Any:
        if isinstance(value, Mapping):
            return value.get("type", default)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        return next((kind for kind, model in models.items() if isinstance(value, model)), None)

    return pydantic.Discriminator(
        type_of,
        custom_error_type="unknown_type",
        custom_error_message=f"type should be one of {', '.join(models)}",
    )
