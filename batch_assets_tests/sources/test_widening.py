"""Types of columns: each has a name that means it, and the wider one of two holds the values of both unchanged."""

import datetime
import decimal
import io
import itertools
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.sources.arrays import array_of, arrow_array
from batch_assets.sources.column_types import arrow_type, declared_type
from batch_assets.sources.value_texts import json_array, text_array
from batch_assets.sources.widening import holds, widest

DAY = datetime.datetime(2020, 1, 2, 3, 4, 5)
SAMPLES: dict[str, list[Any]] = {
    "bool": [True, False],
    "int8": [-128, 127],
    "uint8": [0, 255],
    "int32": [-(2**31), 2**31 - 1],
    "uint32": [0, 2**32 - 1],
    "int64": [-(2**63), 2**63 - 1],
    "uint64": [0, 2**64 - 1],
    "float16": [0.5, -2.0],
    "float32": [0.25, 2.0**100],
    "float64": [0.1, 1e300],
    "string": ["a", '"'],
    "binary": [b"\xff", b""],
    "fixed_size_binary[2]": [b"\xff\x00", b"ab"],
    "fixed_size_binary[3]": [b"\xff\x00\x01"],
    "date32": [DAY.date(), datetime.date(1, 1, 1)],
    "time32[ms]": [datetime.time(1, 2, 3, 4000), datetime.time()],
    "time64[us]": [datetime.time(1, 2, 3, 4), datetime.time()],
    "timestamp[ms]": [DAY, datetime.datetime(9999, 12, 31)],
    "timestamp[us]": [DAY, datetime.datetime(1, 1, 1)],
    "timestamp[us, UTC]": [DAY.replace(tzinfo=datetime.UTC)],
    "timestamp[ms, Europe/Berlin]": [DAY.replace(tzinfo=datetime.UTC)],
    "timestamp[ns]": [DAY],
    "duration[ms]": [datetime.timedelta(days=-1)],
    "decimal128(4, 2)": [decimal.Decimal("-99.99")],
    "decimal128(38, 0)": [decimal.Decimal("9" * 38)],
    '{"list":"int32"}': [[1, None], []],
    '{"list":"null"}': [[None], []],
    '{"struct":{"a":"null","b":{"list":"string"}}}': [{"a": None, "b": ["x"]}],
    '{"struct":{"a":"int64","b":{"list":"null"}}}': [{"a": 1, "b": [None]}],
    '{"map":["string","float64"]}': [[("k", 0.5)]],
}


def sample(name: str) -> pa.Array:
    return pa.array([*SAMPLES[name], None], arrow_type(name))


@pytest.mark.parametrize("name", SAMPLES)
def test_a_type_comes_back_from_parquet_as_it_was(name: str) -> None:
    assert declared_type(arrow_type(name)) == name
    file = io.BytesIO()
    pq.write_table(pa.table({"v": sample(name)}), file)
    file.seek(0)
    assert declared_type(pq.ParquetFile(file).schema_arrow.field("v").type) == name


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations_with_replacement(SAMPLES, 2)))
def test_the_wider_of_two_types_holds_the_values_of_both(one: str, other: str) -> None:
    integers = [v for name in (one, other) for v in SAMPLES[name] if type(v) is int]
    bounds = min(integers, default=0), max(integers, default=0)
    wide = widest({one, other}, *bounds)
    assert holds(wide, {one, other}, *bounds)
    for array in (sample(one), sample(other)):
        found = arrow_array(array, wide)
        assert found.type == arrow_type(wide)
        if wide in ("string", "json") and declared_type(array.type) != wide:
            array = text_array(array) if wide == "string" else json_array(array)  # noqa: PLW2901
        assert found.to_pylist() == array.to_pylist()


@pytest.mark.parametrize(
    ("fixed", "found", "kept"),
    [
        ("json", "int64", True),
        ("string", "date32", True),
        ("string", "binary", True),
        ("int64", "int32", True),
        ("int64", "float64", False),
        ("float64", "float32", True),
        ("float64", "int64", True),
        ("bool", "string", False),
    ],
)
def test_what_a_column_of_an_older_plan_takes(fixed: str, found: str, kept: bool) -> None:
    assert holds(fixed, {found}) is kept


@pytest.mark.parametrize("name", ["", "text", "int128", "timestamp[h]", "decimal128(99, 1)", "{", "[]", '{"list":3}',
                                  '{"struct":[]}', "null", '{"list":' * 40 + '"int64"' + "}" * 40])  # fmt: skip
def test_a_name_of_no_type(name: str) -> None:
    with pytest.raises(ValueError, match="column type"):
        arrow_type(name)


@pytest.mark.parametrize(
    ("values", "plan_type"),
    [
        ([1, 7.5], "int64"),
        ([True], "int64"),
        ([2**63], "int64"),
        ([2**53 + 1], "float64"),
        ([True], "float64"),
        ([1], "bool"),
        ([1], "string"),
        (["x"], "float64"),
        ([1], "date32"),
    ],
)
def test_no_value_of_json_is_stored_as_another(values: list[Any], plan_type: str) -> None:
    with pytest.raises(pa.ArrowException):
        array_of(values, plan_type)


@pytest.mark.parametrize(
    ("array", "plan_type"),
    [
        (pa.array([7.5]), "int64"),
        (pa.array([300]), "int8"),
        (pa.array([2**53 + 1]), "float64"),
        (pa.array([1]), "string"),
        (pa.array([True]), "int64"),
        (pa.array([0.1]), "float32"),
        (pa.array([DAY], pa.timestamp("us")), "date32"),
    ],
)
def test_no_value_of_parquet_is_stored_as_another(array: pa.Array, plan_type: str) -> None:
    with pytest.raises(pa.ArrowException):
        arrow_array(array, plan_type)
