"""The narrowest type that holds the values of several types of columns.

Nothing is rounded or cut. What no type holds becomes text where all of it can be written as text,
else JSON text.
"""

import re
from collections.abc import Collection
from typing import Any

import orjson

from batch_assets.sources.column_types import DECIMAL, FIXED_BINARY, MOST_DIGITS, arrow_type

_INT64 = (-(2**63), 2**63 - 1)
_EXACT = (-(2**53), 2**53)  # float64 holds every integer between them
_FLOATS = ("float16", "float32", "float64")


def written_as_text(name: str) -> bool:
    """Whether values of this type go into a column of text, in the form that `value_texts.py` gives them."""
    whole = ("string", "binary", "date32", "timestamp", "time32", "time64", "duration", "decimal")
    return name.startswith((*whole, "fixed_size_binary"))


def widest(types: Collection[str], lowest: int = 0, highest: int = 0) -> str:
    """The narrowest type that holds every value of several types; `string` of none.

    `lowest` and `highest` bound the integers among them.
    """
    if not types:
        return "string"
    if types == {"int64"} and not _within(lowest, highest, *_INT64):
        return "json"
    first, *others = sorted(types)
    for other in others:
        first = _wider(first, other, lowest, highest)
    return first


def holds(fixed: str, types: Collection[str], lowest: int = 0, highest: int = 0) -> bool:
    """Whether a column of type `fixed` can take every value of `types`, as it is or as text that it has already."""
    return widest({fixed, *types}, lowest, highest) == fixed


def _within(lowest: int, highest: int, least: int, most: int) -> bool:
    return least <= lowest and highest <= most


def _wider(one: str, other: str, lowest: int, highest: int) -> str:
    """The type that holds the values of two types."""
    if one == other:
        return one
    if _is_number(one) and _is_number(other):
        return _wider_number(one, other, lowest, highest)
    both_timestamps = one.startswith("timestamp") and other.startswith("timestamp")
    if both_timestamps and (found := _wider_timestamp(one, other)) is not None:
        return found
    if one.startswith("{") and other.startswith("{"):
        joined = _wider_nested(orjson.loads(one), orjson.loads(other))
        return "json" if joined is None else orjson.dumps(joined).decode()
    decimals = DECIMAL.fullmatch(one), DECIMAL.fullmatch(other)
    if decimals[0] and decimals[1]:
        scale = max(int(decimals[0][3]), int(decimals[1][3]))
        precision = max(int(each[2]) - int(each[3]) for each in decimals if each) + scale
        if precision <= MOST_DIGITS:
            return f"decimal128({precision}, {scale})"
    if all(name == "binary" or FIXED_BINARY.fullmatch(name) for name in (one, other)):
        return "binary"
    return "string" if written_as_text(one) and written_as_text(other) else "json"


def _is_number(name: str) -> bool:
    return name in _FLOATS or is_integer(name)


def is_integer(name: str) -> bool:
    """Whether it is a type of integers."""
    return name.removeprefix("u").startswith("int")


def _wider_number(one: str, other: str, lowest: int, highest: int) -> str:
    if is_integer(one) != is_integer(other):
        return "float64" if _within(lowest, highest, *_EXACT) else "json"
    wide = max(one, other, key=_bits)
    if one in _FLOATS or (one.startswith("u") and other.startswith("u")):
        return wide
    same_sign = one.startswith("u") == other.startswith("u")
    if same_sign and wide != "int64":
        return wide
    return "int64" if _within(lowest, highest, *_INT64) else "json"


def _bits(name: str) -> int:
    return int(re.sub("[a-z]", "", name))


def _wider_timestamp(one: str, other: str) -> str | None:
    """Of milliseconds and microseconds the finer; nanoseconds reach from 1677 to 2262 only, so no other fits in."""
    first, second = arrow_type(one), arrow_type(other)
    if (first.tz is None) != (second.tz is None):
        return None
    units = {first.unit, second.unit}
    if "ns" in units and len(units) > 1:
        return None
    unit = "us" if "us" in units else first.unit
    zone = first.tz if first.tz == second.tz else "UTC"
    return f"timestamp[{unit}]" if zone is None else f"timestamp[{unit}, {zone}]"


def _wider_nested(one: Any, other: Any) -> Any | None:
    """Two nested types that differ in what is null in one of them only; None where they differ in more."""
    if one == other:
        return one
    if "null" in (one, other):
        return one if other == "null" else other
    if not isinstance(one, dict) or not isinstance(other, dict) or one.keys() != other.keys():
        return None
    if "struct" in one:
        if one["struct"].keys() != other["struct"].keys():
            return None
        parts = {name: _wider_nested(part, other["struct"][name]) for name, part in one["struct"].items()}
        return None if None in parts.values() else {"struct": parts}
    if "list" in one and one.get("size") == other.get("size"):
        part = _wider_nested(one["list"], other["list"])
        return None if part is None else {**one, "list": part}
    return None
