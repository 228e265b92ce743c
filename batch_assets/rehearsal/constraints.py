"""What a value breaks of its service model's constraints, in the words of AWS.

Botocore's own check before sending knows types, required fields and minimums only; the
service also refuses too long, too large, ill-formed and unlisted values.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

_NUMBERS = ("integer", "long", "float", "double")
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str, "integer": int, "long": int, "float": (int, float), "double": (int, float),
    "boolean": bool, "structure": Mapping, "map": Mapping, "list": Sequence, "blob": (bytes, str),
    "timestamp": (int, float, str),
}  # fmt: skip


def violations(
    value: Any, shape: Any, path: str = "", left_out: Mapping[str, Collection[str]] | None = None
) -> Iterator[str]:
    """One sentence per broken constraint, as in the message of a ValidationException.

    `left_out`: by structure, the required members that may be absent all the same.
    """
    left_out = left_out or {}
    if not _has_type(value, shape.type_name):
        yield f"Value at '{path}' failed to satisfy constraint: Member must be of type {shape.type_name}"
    elif shape.type_name == "structure":
        yield from _structure(value, shape, path, left_out)
    elif shape.type_name == "list":
        yield from _size(len(value), value, shape, path, "length")
        for index, item in enumerate(value):
            yield from violations(item, shape.member, f"{path}.{index + 1}.member", left_out)
    elif shape.type_name == "map":
        yield from _size(len(value), value, shape, path, "length")
        for key, item in value.items():
            yield from violations(item, shape.value, f"{path}.{key}", left_out)
    elif shape.type_name in _NUMBERS:
        yield from _size(value, value, shape, path, "value")
    elif shape.type_name in ("string", "blob"):
        yield from _text(value, shape, path)


def _has_type(value: object, name: str) -> bool:
    if isinstance(value, bool) or (isinstance(value, str) and name == "list"):
        return isinstance(value, bool) and name == "boolean"
    return isinstance(value, _TYPES[name])


def _structure(
    value: Mapping[str, Any], shape: Any, path: str, left_out: Mapping[str, Collection[str]]
) -> Iterator[str]:
    if getattr(shape, "is_document_type", False):
        return
    for name in shape.required_members:
        if value.get(name) is None and name not in left_out.get(shape.name, ()):
            yield f"Value null at '{_join(path, name)}' failed to satisfy constraint: Member must not be null"
    given = {name: item for name, item in value.items() if item is not None and name in shape.members}
    if getattr(shape, "is_tagged_union", False) and len(given) != 1:
        yield f"Value at '{path}' failed to satisfy constraint: Member must have exactly one field set"
    for name, item in given.items():
        yield from violations(item, shape.members[name], _join(path, name), left_out)


def _text(value: str | bytes, shape: Any, path: str) -> Iterator[str]:
    yield from _size(len(value), value, shape, path, "length")
    listed = getattr(shape, "enum", [])
    if listed and value not in listed:
        yield _sentence(value, path, f"Member must satisfy enum value set: [{', '.join(listed)}]")
    pattern = shape.metadata.get("pattern")
    # Tried only at a legal length: a pattern may need very long on a hostile value.
    short = len(value) <= shape.metadata.get("max", 2048)
    if pattern and short and isinstance(value, str) and not re.fullmatch(_in_python(pattern), value):
        yield _sentence(value, path, f"Member must satisfy regular expression pattern: {pattern}")


def _in_python(pattern: str) -> str:
    """Java's classes of characters, all within [...], in the nearest that Python's `re` has."""
    return pattern.replace(r"\p{L}", r"\w").replace(r"\p{N}", r"\d").replace(r"\p{Z}", r"\s")


def _size(size: float, value: Any, shape: Any, path: str, what: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and size < least:
        yield _sentence(value, path, f"Member must have {what} greater than or equal to {least}")
    if most is not None and size > most:
        yield _sentence(value, path, f"Member must have {what} less than or equal to {most}")


def _sentence(value: Any, path: str, rule: str) -> str:
    return f"Value '{value}' at '{path}' failed to satisfy constraint: {rule}"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
