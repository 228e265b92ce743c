"""Parquet files that PyArrow writes: every type that it has, and every form that a file can have."""

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

TEXT = pa.array(["x", "ü\n", "z"])
ID = pa.array([7, 8, 9], pa.int32())
DAY = dt.date(2020, 2, 29)
UUIDS = pa.ExtensionArray.from_storage(
    pa.uuid(), pa.array([b"sixteen letters.", None, b"\xff" * 16], pa.binary(16))
)
DEEP = pa.list_(
    pa.struct({"m": pa.map_(pa.string(), pa.list_(pa.struct({"x": pa.int16(), "y": pa.date32()})))})
)

TYPES: dict[str, pa.Array] = {
    **{
        str(found): pa.array([0, None, 2 ** (found.bit_width - 1) - 1], found)
        for found in (pa.int8(), pa.int16(), pa.int32(), pa.int64())
    },
    **{
        str(found): pa.array([0, None, 2**found.bit_width - 1], found)
        for found in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
    },
    **{str(found): pa.array([0.1, None, float("nan")], found) for found in (pa.float16(), pa.float32(), pa.float64())},
    "infinite": pa.array([float("inf"), None, float("-inf")]),
    "bool": pa.array([True, None, False]),
    "string": pa.array(["", None, "\x00"]),
    "large_string": pa.array(["a", None, "b"], pa.large_string()),
    "string_view": pa.array(["a", None, "b" * 30], pa.string_view()),
    "binary": pa.array([b"", None, b"\xff"]),
    "binary_view": pa.array([b"a", None, b"\xff" * 30], pa.binary_view()),
    "fixed_size_binary": pa.array([b"ab", None, b"\xff\x00"], pa.binary(2)),
    "dictionary": pa.array(["a", None, "a"]).dictionary_encode(),
    "dictionary_of_large": pa.array(["a", None, "a"], pa.large_string()).dictionary_encode(),
    "date32": pa.array([DAY, None, dt.date(1, 1, 1)]),
    "date64": pa.array([DAY, None, dt.date(9999, 12, 31)], pa.date64()),
    **{f"time32[{unit}]": pa.array([0, None, 86_399], pa.time32(unit)) for unit in ("s", "ms")},
    **{f"time64[{unit}]": pa.array([0, None, 86_399_000_000], pa.time64(unit)) for unit in ("us", "ns")},
    **{f"timestamp[{unit}]": pa.array([-1, None, 1], pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")},
    "timestamp_far": pa.array([dt.datetime(9999, 12, 31), None, dt.datetime(1, 1, 1)], pa.timestamp("s")),
    "timestamp_zone": pa.array([0, None, 1], pa.timestamp("us", "Asia/Kathmandu")),
    "timestamp_offset": pa.array([0, None, 1], pa.timestamp("ns", "+05:30")),
    **{f"duration[{unit}]": pa.array([-1, None, 2**40], pa.duration(unit)) for unit in ("s", "ms", "us", "ns")},
    "decimal32": pa.array([Decimal("1.5"), None, Decimal(-2)], pa.decimal32(5, 1)),
    "decimal64": pa.array([Decimal("1.5"), None, Decimal(-2)], pa.decimal64(15, 1)),
    "decimal128": pa.array([Decimal("1.5"), None, Decimal(-2)], pa.decimal128(38, 10)),
    "decimal256": pa.array([Decimal("1.5"), None, Decimal(10) ** 60], pa.decimal256(76, 10)),
    "decimal256_small": pa.array([Decimal("1.5"), None, Decimal(-2)], pa.decimal256(10, 1)),
    "null": pa.nulls(3),
    "list": pa.array([[1, None], None, []], pa.list_(pa.uint32())),
    "list_of_nulls": pa.array([[None], None, []]),
    "large_list": pa.array([["a"], None, []], pa.large_list(pa.large_string())),
    "list_view": pa.array([None, ["b", "c"], ["a"]], pa.list_view(pa.string_view())),
    "large_list_view": pa.array([None, [1, 2], []], pa.large_list_view(pa.int8())),
    "fixed_size_list": pa.array([[1.5, None], None, [2.5, float("nan")]], pa.list_(pa.float32(), 2)),
    "list_of_dictionaries": pa.ListArray.from_arrays([0, 1, 1, 3], pa.array(["a", "b", "a"]).dictionary_encode()),
    "list_of_uuids": pa.ListArray.from_arrays([0, 1, 1, 3], UUIDS),
    "list_of_durations": pa.array([[1], None, []], pa.list_(pa.duration("ms"))),
    "list_of_date64": pa.array([[DAY], None, []], pa.list_(pa.date64())),
    "struct": pa.array([{"a b": 1, "c.d": None}, None, {"a b": None, "c.d": b"\xff"}]),
    "struct_of_seconds": pa.array([{"t": 0}, None, {"t": None}], pa.struct({"t": pa.timestamp("s", "UTC")})),
    "map": pa.array([[("a", 1), ("b", None)], None, []], pa.map_(pa.large_string(), pa.uint8())),
    "map_of_maps": pa.array([[(1, [("b", "c")])], None, []], pa.map_(pa.int8(), pa.map_(pa.string(), pa.string()))),
    "deep": pa.array([[{"m": [("k", [{"x": 1, "y": DAY}, None])]}, None], None, []], DEEP),
    "uuid": UUIDS,
    "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}', None, "[]"])),
    "bool8": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([0, None, 2], pa.int8())),
    "tensor": pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.int8(), (1, 2)), pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int8(), 2))
    ),
    "opaque": pa.ExtensionArray.from_storage(pa.opaque(pa.string(), "a", "b"), pa.array(["a", None, "c"])),
}  # fmt: skip

PLAIN = pa.table(
    {
        "text": TEXT,
        "id": ID,
        "time": pa.array([0, None, 5], pa.timestamp("us")),
        "price": TYPES["decimal128"],
        "words": pa.array([["a"], None, ["b", "a"]]),
        "number": pa.array([1, 2, None]),
    }
)
FORMS: dict[str, dict[str, Any]] = {
    **{f"compression_{name}": {"compression": name} for name in ("none", "snappy", "gzip", "brotli", "lz4", "zstd")},
    **{f"version_{version}": {"version": version} for version in ("1.0", "2.4", "2.6")},
    "data_page_2.0": {"data_page_version": "2.0"},
    "no_dictionaries": {"use_dictionary": False},
    "delta": {
        "use_dictionary": False,
        "column_encoding": {"text": "DELTA_BYTE_ARRAY", "id": "DELTA_BINARY_PACKED", "number": "DELTA_BINARY_PACKED"},
    },
    "delta_lengths": {"use_dictionary": False, "column_encoding": {"text": "DELTA_LENGTH_BYTE_ARRAY"}},
    "byte_streams": {"use_dictionary": False, "column_encoding": {"id": "BYTE_STREAM_SPLIT"}},
    "row_groups": {"row_group_size": 1},
    "no_schema": {"store_schema": False},
    "no_statistics": {"write_statistics": False},
    "page_index": {"write_page_index": True, "write_page_checksum": True},
    "decimals_as_integers": {"store_decimal_as_integer": True},
    "int96": {"use_deprecated_int96_timestamps": True},
    "old_lists": {"use_compliant_nested_type": False},
}  # fmt: skip


def _written(path: Path, table: pa.Table, **form: Any) -> pa.Table:
    pq.write_table(table, path, **form)
    return pq.read_table(path, coerce_int96_timestamp_unit="us")  # as Spark, DuckDB and Polars have it


def _typed(name: str) -> Callable[[Path], pa.Table]:
    table = pa.table({"text": TEXT, "id": ID, "v": TYPES[name]})
    return lambda folder: _written(folder / "a.parquet", table)


def _formed(name: str) -> Callable[[Path], pa.Table]:
    return lambda folder: _written(folder / "a.parquet", PLAIN, **FORMS[name])


def dataset(folder: Path) -> pa.Table:
    """Several files, as the writer of data sets names them."""
    pyarrow.dataset.write_dataset(PLAIN, folder, format="parquet", max_rows_per_file=1, max_rows_per_group=1)
    return pyarrow.dataset.dataset(folder).to_table()


def empty_parts(folder: Path) -> pa.Table:
    """Row groups of no rows, and a file of none, among others."""
    with pq.ParquetWriter(folder / "a.parquet", PLAIN.schema) as writer:
        for rows in (PLAIN.slice(0, 0), PLAIN.slice(0, 2), PLAIN.slice(0, 0), PLAIN.slice(2)):
            writer.write_table(rows)
    pq.write_table(PLAIN.slice(0, 0), folder / "b.parquet")
    return pq.read_table(folder / "a.parquet")


FILES: dict[str, Callable[[Path], pa.Table]] = {
    **{f"pyarrow-{name}": _typed(name) for name in TYPES},
    **{f"pyarrow-{name}": _formed(name) for name in FORMS},
    "pyarrow-dataset": dataset,
    "pyarrow-empty_parts": empty_parts,
}
