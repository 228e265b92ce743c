"""Parquet files that Polars writes, of every type that it has."""

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

DAY, TIME = dt.datetime(2020, 2, 29, 1, 2, 3, 456_789), dt.time(1, 2, 3, 4)
PRICES = pl.List(pl.Struct({"b": pl.Decimal(5, 1)}))
INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)

TYPES: dict[str, tuple[list[Any], Any]] = {
    **{str(found): ([0, None, 100], found) for found in INTEGERS},
    **{str(found): ([0.5, None, float("nan")], found) for found in (pl.Float16, pl.Float32, pl.Float64)},
    "Boolean": ([True, None, False], pl.Boolean),
    "String": (["", None, "ü"], pl.String),
    "Binary": ([b"", None, b"\xff"], pl.Binary),
    "Categorical": (["a", None, "b"], pl.Categorical),
    "Enum": (["a", None, "b"], pl.Enum(["b", "a"])),
    "Date": ([DAY.date(), None, dt.date(1, 1, 1)], pl.Date),
    "Time": ([TIME, None, dt.time(0)], pl.Time),
    "Datetime_ms": ([DAY, None, dt.datetime(1, 1, 1)], pl.Datetime("ms")),
    "Datetime_us": ([DAY, None, dt.datetime(1, 1, 1)], pl.Datetime("us")),
    "Datetime_ns": ([DAY, None, dt.datetime(1970, 1, 1)], pl.Datetime("ns")),
    "Datetime_zone": ([DAY.replace(tzinfo=dt.UTC), None, None], pl.Datetime("us", "Asia/Tokyo")),
    "Duration_ms": ([dt.timedelta(1, 5, 6000), None, dt.timedelta(-1)], pl.Duration("ms")),
    "Duration_us": ([dt.timedelta(1, 5, 6), None, dt.timedelta(-1)], pl.Duration("us")),
    "Duration_ns": ([dt.timedelta(1, 5, 6), None, dt.timedelta(-1)], pl.Duration("ns")),
    "Decimal": ([Decimal("1.50"), None, Decimal(2)], pl.Decimal(10, 2)),
    "Decimal_38": ([Decimal("1.50"), None, Decimal(2)], pl.Decimal(38, 2)),
    "Null": ([None, None, None], pl.Null),
    "List": ([[1, None], None, []], pl.List(pl.UInt8)),
    "List_of_Null": ([[None], None, []], pl.List(pl.Null)),
    "List_of_Categorical": ([["a", "b"], None, ["a"]], pl.List(pl.Categorical)),
    "List_of_Time": ([[TIME], None, []], pl.List(pl.Time)),
    "Array": ([[1.0, 2.0], None, [3.0, None]], pl.Array(pl.Float32, 2)),
    "Array_of_Array": ([[[1, 2], [3, 4]], None, [[5, 6], [7, 8]]], pl.Array(pl.Int8, (2, 2))),
    "List_of_Array": ([[[1, 2]], None, []], pl.List(pl.Array(pl.Int8, 2))),
    "Struct": ([{"a": 1, "b.c": "x"}, None, {"a": None}], pl.Struct({"a": pl.Int64, "b.c": pl.Categorical})),
    "Struct_of_List": ([{"a": [{"b": Decimal("1.5")}]}, None, {"a": []}], pl.Struct({"a": PRICES})),
}


def _typed(name: str) -> Callable[[Path], pa.Table]:
    def write(folder: Path) -> pa.Table:
        values, found = TYPES[name]
        frame = pl.DataFrame({"text": ["x", "ü", "z"], "id": [1, 2, 3], "v": pl.Series(values, dtype=found)})
        frame.write_parquet(folder / "a.parquet")
        return pl.read_parquet(folder / "a.parquet").to_arrow()

    return write


FILES: dict[str, Callable[[Path], pa.Table]] = {f"polars-{name}": _typed(name) for name in TYPES}
