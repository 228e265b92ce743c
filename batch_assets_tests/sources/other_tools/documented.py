"""What a column that another tool has written is to be here: the one rule that all files are judged by.

Every type stays as it is, but for the exceptions below; every value stays what the tool itself reads.
Files of JSON and CSV declare no types: theirs follow from their values.
"""

import datetime
import json
import math
import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa

from batch_assets.sources.column_types import arrow_type
from batch_assets_tests.sharding.planning import Planned

# Parquet, or one of its common readers, has no other form of these.
INSTEAD: dict[pa.DataType, pa.DataType] = {
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
    pa.date64(): pa.date32(),
    pa.time32("s"): pa.time32("ms"),
    pa.month_day_nano_interval(): pa.string(),  # ISO 8601
}
EXTENSIONS: dict[str, pa.DataType] = {"arrow.uuid": pa.string(), "arrow.bool8": pa.bool_()}


def documented_type(found: Any, *, nested: bool = False) -> pa.DataType:
    """The type in which a column of type `found` passes through."""
    if isinstance(found, pa.BaseExtensionType):
        return EXTENSIONS.get(found.extension_name) or documented_type(found.storage_type, nested=nested)
    if pa.types.is_dictionary(found):
        return documented_type(found.value_type, nested=nested)
    if pa.types.is_null(found):
        return found if nested else pa.string()
    if pa.types.is_timestamp(found):
        zone = "UTC" if found.tz == "+05:30" else found.tz  # an offset, which Polars refuses
        return pa.timestamp("ms" if found.unit == "s" else found.unit, zone)
    if pa.types.is_decimal(found):
        return pa.decimal128(found.precision, found.scale) if found.precision <= 38 else pa.string()
    if not pa.types.is_nested(found):
        return INSTEAD.get(found, found)
    if pa.types.is_map(found):
        return pa.map_(*(documented_type(part, nested=True) for part in (found.key_type, found.item_type)))
    if pa.types.is_struct(found):
        return pa.struct([(field.name, documented_type(field.type, nested=True)) for field in found])
    size = found.list_size if pa.types.is_fixed_size_list(found) else -1
    return pa.list_(pa.field("element", documented_type(found.value_type, nested=True)), size)


def documented_value(value: Any) -> Any:
    """A value as Python has it; as text what Arrow may have as text, and NaN, which equals nothing."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else value
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, pa.MonthDayNano):
        months, days, nanoseconds = tuple(value)
        seconds, rest = divmod(nanoseconds // 1_000_000, 1_000)
        return f"P{months}M{days}DT{seconds}.{rest:03}S"
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(datetime.UTC)
    if isinstance(value, dict):
        return {name: documented_value(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [documented_value(one) for one in value]
    return value


def assert_as_documented(planned: Planned, own: pa.Table) -> None:
    """The records of a source are those that the tool itself reads: texts, ids, columns, types and values."""
    assert planned.rejections() == []
    assert planned.texts() == own.column("text").to_pylist()
    if "id" in own.column_names:
        assert planned.ids() == [str(value) for value in own.column("id").to_pylist()]
    types = {name: arrow_type(found) for name, found in planned.summary.columns.items()}
    assert types == {field.name: documented_type(field.type) for field in own.schema}
    for records in planned.records():
        assert dict(zip(records.columns.schema.names, records.columns.schema.types, strict=True)) == types
    for name, values in planned.columns().items():
        assert documented_value(values) == documented_value(own.column(name).to_pylist()), name


def assert_as_json(planned: Planned, own: Sequence[dict[str, Any]]) -> None:
    """The records are those objects; each column has one of the five types that values of JSON have."""
    assert planned.rejections() == []
    assert planned.texts() == [row["text"] for row in own]
    stored = planned.columns()
    assert set(stored) == {name for row in own for name in row}
    for name, values in stored.items():
        expected = [row.get(name) for row in own]
        found = {type(value) for value in expected if value is not None}
        if planned.summary.columns[name] == "json":
            assert found not in ({bool}, {str}, {float}), name
            assert [None if value is None else json.loads(value) for value in values] == expected, name
            continue
        plan_types = {int: "int64", float: "float64", bool: "bool", str: "string"}
        assert planned.summary.columns[name] == (
            "float64" if found == {int, float} else plan_types[found.pop()] if found else "string"
        )
        assert values == expected, name
