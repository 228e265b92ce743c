"""Passed-through values as Arrow arrays of the plan's types: from Python values, and from Arrow's own.

Which type a column has is decided in `columns.py`.
"""

import base64
import datetime
import decimal
from collections.abc import Sequence
from typing import Any

import orjson
import pyarrow as pa

from batch_assets.sources.json_values import json_text
from batch_assets.sources.temporal import temporal_as_text, temporal_text, text_of_each

PLAN_TYPES: dict[str, pa.DataType] = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "json": pa.string(),
}


def array_of(values: Sequence[Any], plan_type: str) -> pa.Array:
    """Python values as a column. Raises pa.ArrowException or TypeError for one that is of another type."""
    if plan_type == "json":
        return pa.array([None if value is None else json_text(value) for value in values], pa.string())
    return pa.array(values, PLAN_TYPES[plan_type])


def natural_type(data_type: pa.DataType) -> str | None:
    """The plan's type for an Arrow type; None for a column of nothing but nulls.

    What the five types cannot hold becomes text: dates and times in ISO 8601 (UTC where there
    is a time zone), decimals in digits, durations with their unit, binary in base64.
    """
    data_type = _plain(data_type)
    if pa.types.is_null(data_type):
        return None
    if pa.types.is_boolean(data_type):
        return "bool"
    if pa.types.is_uint64(data_type) or pa.types.is_nested(data_type):
        return "json"
    if pa.types.is_integer(data_type):
        return "int64"
    return "float64" if pa.types.is_floating(data_type) else "string"


def natural_array(array: pa.Array) -> pa.Array:
    """An Arrow column in the type that `natural_type` names for it (json: as JSON text)."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary_decode()
    found = array.type
    plan_type = natural_type(found)
    if plan_type is None:
        return pa.nulls(len(array), pa.string())
    if plan_type == "json":
        return text_of_each(temporal_as_text(array), nested_text)
    if pa.types.is_temporal(found):
        return temporal_text(array)
    if _is_binary(found):
        return text_of_each(array, lambda value: base64.b64encode(value).decode())
    return array.cast(PLAN_TYPES[plan_type])


def arrow_array(array: pa.Array, plan_type: str) -> pa.Array:
    """An Arrow column in the type the plan has fixed, which may be wider than its own."""
    natural = natural_type(array.type)
    converted = natural_array(array)
    if natural in (plan_type, None):
        return converted.cast(PLAN_TYPES[plan_type])
    if plan_type == "json":
        return array_of(converted.to_pylist(), "json")
    if plan_type == "float64" and natural == "int64":
        return converted.cast(pa.float64())
    raise pa.ArrowInvalid(f"{natural} values in a column planned as {plan_type}")


def _plain(data_type: pa.DataType) -> pa.DataType:
    if isinstance(data_type, pa.BaseExtensionType):
        data_type = data_type.storage_type
    return data_type.value_type if pa.types.is_dictionary(data_type) else data_type


def _is_binary(data_type: pa.DataType) -> bool:
    return (
        pa.types.is_binary(data_type)
        or pa.types.is_large_binary(data_type)
        or pa.types.is_fixed_size_binary(data_type)
        or pa.types.is_binary_view(data_type)
    )


def nested_text(value: Any) -> str:
    """JSON text of a value as Arrow gives it, with what JSON lacks as `natural_type` says."""
    try:
        return orjson.dumps(value, default=_plain_value, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        return json_text(_simplified(value))


def _simplified(value: Any) -> Any:
    """`value` in nothing but JSON's kinds of values."""
    if isinstance(value, dict):
        return {str(key): _simplified(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_simplified(item) for item in value]
    if isinstance(value, float) and value - value != 0:  # NaN and the infinities, which JSON lacks
        return None
    return value if value is None or isinstance(value, (str, int, float)) else _plain_value(value)


def _plain_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (decimal.Decimal, datetime.timedelta)):
        return str(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
