"""Passed-through values as Arrow arrays of the plan's types: from Python values, and from Arrow's own.

Which type a column has is decided in `columns.py`, what the types are in `column_types.py`. No value is
stored as another one: what does not fit is an error.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from batch_assets.sources.column_types import JSON_EXTENSION, arrow_type, declared_type
from batch_assets.sources.json_values import json_text
from batch_assets.sources.value_texts import json_array, plain_array, text_array
from batch_assets.sources.widening import widest

_PYTHON_TYPES = {"int64": {int}, "float64": {int, float}, "bool": {bool}, "string": {str}}


def array_of(values: Sequence[Any], plan_type: str) -> pa.Array:
    """Values of JSON as a column. Raises pa.ArrowException for one that is of another type."""
    if plan_type == "json":
        return pa.array([None if value is None else json_text(value) for value in values], pa.string())
    found = set(map(type, values)) - {type(None)}
    if not found <= _PYTHON_TYPES.get(plan_type, set()):
        # Arrow itself would cut 7.5 to 7, and make a number of a boolean.
        strange = next(v for v in values if v is not None and type(v) not in _PYTHON_TYPES.get(plan_type, ()))
        raise pa.ArrowInvalid(f"{strange!r} in a column of {plan_type}")
    try:
        if plan_type == "float64" and int in found:
            integers = [value for value in values if type(value) is int]
            if any(int(float(value)) != value for value in integers):
                raise pa.ArrowInvalid(f"{max(integers, key=abs)} is no exact float64")
        return pa.array(values, arrow_type(plan_type))
    except OverflowError as error:
        raise pa.ArrowInvalid(str(error)) from None


def arrow_array(array: pa.Array, plan_type: str) -> pa.Array:
    """An Arrow column in the type the plan has fixed, which may be wider than its own. Raises pa.ArrowException."""
    declared = declared_type(array.type)
    if declared is None:
        return pa.nulls(len(array), arrow_type(plan_type))
    if declared != plan_type and plan_type == "json":
        return json_array(array)
    if declared == "json":
        return _stored_json(array, plan_type)
    if plan_type == "string":
        if widest({declared, "string"}) != "string":
            raise pa.ArrowInvalid(f"{declared} values in a column of text")
        return text_array(array)
    plain = plain_array(array)
    if declared != plan_type and not _fits(declared, plan_type):
        raise pa.ArrowInvalid(f"{declared} values in a column of {plan_type}")
    if plain.type == arrow_type(plan_type):
        return plain
    if pa.types.is_nested(plain.type):
        # A cast would go through all that a slice's parent holds.
        plain = plain.take(pa.array(range(len(plain)), pa.int64()))
    return plain.cast(arrow_type(plan_type))


def _fits(declared: str, plan_type: str) -> bool:
    """Whether a cast, which is an error where a value does not fit, is between types of one kind."""
    wider = widest({declared, plan_type})
    return wider == plan_type or {declared, plan_type} == {"uint64", "int64"}


def _stored_json(array: pa.Array, plan_type: str) -> pa.Array:
    """A column that JSON text stands for; where it is marked as such, it is JSON text already."""
    if plan_type not in ("json", "string"):
        raise pa.ArrowInvalid(f"mixed or nested values in a column of {plan_type}")
    is_json = isinstance(array, pa.ExtensionArray) and array.type.extension_name == JSON_EXTENSION
    return array.storage.cast(pa.string()) if is_json else json_array(array)
