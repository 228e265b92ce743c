"""Parquet columns of types that Arrow or other readers have in part or not at all: ENUM, INT96, long decimals."""

import datetime
import decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.errors import SourceError
from batch_assets_tests.sharding.planning import plan


def write_enum(path: Path, values: pa.Array) -> None:
    """A column `color` marked as ENUM, as Java's parquet-avro writes it and no library here."""
    pq.write_table(pa.table({"text": ["x", "y"], "color": values}), path, store_schema=False)
    # In the footer behind the name: what it was converted from, and its logical type.
    text, enum = b"color\x25\x00\x4c\x1c\x00\x00", b"color\x25\x08\x4c\x4c\x00\x00"
    data = path.read_bytes()
    assert data.count(text) == 1
    path.write_bytes(data.replace(text, enum))
    assert pq.read_schema(path).field("color").type == pa.binary()


def test_enums_are_text(tmp_path: Path) -> None:
    write_enum(tmp_path / "a.parquet", pa.array(["red", None]))
    planned = plan(tmp_path / "a.parquet", tmp_path / "root", text_template="{text} {color}")
    assert planned.summary.columns == {"text": "string", "color": "string"}
    assert planned.columns()["color"] == ["red"]
    assert planned.texts() == ["x red"]
    as_ids = plan(tmp_path / "a.parquet", tmp_path / "root2", text_column="color", id_column="color")
    assert (as_ids.texts(), as_ids.ids()) == (["red"], ["red"])


def test_an_enum_that_is_no_utf_8_rejects_its_record(tmp_path: Path) -> None:
    write_enum(tmp_path / "a.parquet", pa.array([b"red", b"\xff"]).view(pa.string()))
    planned = plan(tmp_path / "a.parquet", tmp_path / "root")
    assert planned.columns()["color"] == ["red"]
    assert [(one.source_row, one.code) for one in planned.rejections()] == [(1, "invalid_utf8")]


@pytest.mark.parametrize("columns", [{"id_column": "v", "text_template": "{v}"}, {"text_column": "v"}])
def test_intervals_are_durations_of_iso_8601(tmp_path: Path, columns: dict[str, Any]) -> None:
    import duckdb

    rows = "select interval '14 month 2 days 3.5 seconds' as v union all select interval '1 hour'"
    duckdb.sql(f"copy ({rows}) to '{tmp_path}/a.parquet'")
    planned = plan(tmp_path / "a.parquet", tmp_path / "root", **columns)
    assert planned.summary.columns == {"v": "string"}
    texts = ["P14M2DT3.500S", "P0M0DT3600.000S"]
    assert planned.columns() == {"v": texts}
    assert planned.texts() == texts


EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
FAR = [datetime.datetime(9999, 12, 31, 23, 59, 59, 999999), None, datetime.datetime(1, 1, 1)]


@pytest.mark.parametrize(
    ("array", "plan_type"),
    [
        (pa.array(FAR, pa.timestamp("us")), "timestamp[us]"),
        (pa.array([1, None, 2**62], pa.timestamp("ns")), "timestamp[ns]"),
        (pa.array([1_000, None, 5_000], pa.timestamp("ns")), "timestamp[us]"),
        (pa.array([{"t": FAR[0]}, None, {"t": None}]), '{"struct":{"t":"timestamp[us]"}}'),
        (pa.array([FAR[:1], None, FAR]), '{"list":"timestamp[us]"}'),
    ],
)
def test_timestamps_of_96_bits_are_what_spark_means(tmp_path: Path, array: pa.Array, plan_type: str) -> None:
    table = pa.table({"text": pa.array(["x", "y", "z"]).dictionary_encode(), "v": array})
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True, row_group_size=2)
    planned = plan(tmp_path / "a.parquet", tmp_path / "root", {"records": 1})
    assert planned.summary.columns["v"] == plan_type
    assert planned.columns()["v"] == array.to_pylist()


def test_timestamps_of_96_bits_that_no_type_holds_together_are_refused(tmp_path: Path) -> None:
    near, far = pa.array([1], pa.timestamp("ns")), pa.array(FAR[:1], pa.timestamp("us"))
    table = pa.table({"text": ["x"], "near": near, "far": far})
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    with pytest.raises(SourceError, match=r"a\.parquet: has INT96 timestamps \(near, far\), some with nano"):
        plan(tmp_path / "a.parquet", tmp_path / "root")


def test_decimals_of_more_than_38_digits_are_text(tmp_path: Path) -> None:
    digits = decimal.Decimal("1234567890123456789012345678901234567890.50")
    array = pa.array([digits, None, decimal.Decimal(1).scaleb(60), -1], pa.decimal256(76, 2))
    pq.write_table(pa.table({"text": ["w", "x", "y", "z"], "v": array}), tmp_path / "a.parquet")
    planned = plan(tmp_path / "a.parquet", tmp_path / "root")
    assert planned.summary.columns["v"] == "string"
    assert planned.columns()["v"] == [str(digits), None, f"1{'0' * 60}.00", "-1.00"]


@pytest.mark.parametrize(
    ("zone", "kept"),
    [
        ("Asia/Kathmandu", "Asia/Kathmandu"),
        ("UTC", "UTC"),
        ("+05:30", "UTC"),
        ("Nowhere/Known", "UTC"),
    ],
)
def test_time_zones_that_readers_do_not_know_become_utc(tmp_path: Path, zone: str, kept: str) -> None:
    array = pa.array([0], pa.timestamp("us")).cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us", zone))
    pq.write_table(
        pa.table({"text": ["x"], "v": array, "list": pa.array([[0]], pa.list_(array.type))}),
        tmp_path / "a.parquet",
    )
    planned = plan(tmp_path / "a.parquet", tmp_path / "root")
    assert planned.summary.columns["v"] == f"timestamp[us, {kept}]"
    assert planned.columns() == {"text": ["x"], "v": [EPOCH], "list": [[EPOCH]]}


def test_nanoseconds_in_lists_of_int96_are_kept(tmp_path: Path) -> None:
    times = pa.array([[1_000_000_001], [None], None], pa.list_(pa.timestamp("ns")))
    table = pa.table({"text": ["x"] * 3, "v": times})
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    planned = plan(tmp_path / "a.parquet", tmp_path / "root")
    assert planned.summary.columns["v"] == '{"list":"timestamp[ns]"}'
    [[records]] = [planned.read(shard) for shard in planned.shards]
    assert records.columns.column("v").cast(pa.list_(pa.int64())).to_pylist() == [
        [1_000_000_001],
        [None],
        None,
    ]
