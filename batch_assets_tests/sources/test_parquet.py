"""Parquet: types, ranges of rows, and files that are none."""

import datetime
import decimal
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.errors import SourceError
from batch_assets.sources.parquet_records import rows_of
from batch_assets_tests.sharding.planning import plan

TEXTS = ["a", "b", None, " ", "e"]


@pytest.mark.parametrize(
    "array",
    [
        pa.array(TEXTS),
        pa.array(TEXTS, pa.large_string()),
        pa.array(TEXTS, pa.string_view()),
        pa.array(TEXTS).dictionary_encode(),
        pa.array([None if text is None else text.encode() for text in TEXTS], pa.binary()),
    ],
    ids=["string", "large_string", "string_view", "dictionary", "binary"],
)
def test_text_of_every_string_type(tmp_path: Path, array: pa.Array) -> None:
    pq.write_table(pa.table({"text": array, "n": range(5)}), tmp_path / "a.parquet", row_group_size=2)
    planned = plan(tmp_path / "a.parquet", tmp_path / "root", shards={"records": 3})
    assert planned.summary.columns == {"text": "string", "n": "int64"}
    assert planned.texts() == ["a", "b", "e"]
    assert planned.columns() == {"text": ["a", "b", "e"], "n": [0, 1, 4]}
    assert [(r.source_row, r.code) for r in planned.rejections()] == [(2, "no_text"), (3, "empty_text")]
    assert planned.rows() == [("a.parquet", row) for row in range(5)]


DAY = datetime.datetime(2020, 1, 2, 3, 4, 5, 678)
UUID = uuid.UUID("c78595bd-40ca-8443-0837-835d2c494085")


@pytest.mark.parametrize(
    ("array", "plan_type", "stored"),
    [
        (pa.array([1], pa.int8()), "int8", 1),
        (pa.array([2**32 - 1], pa.uint32()), "uint32", 2**32 - 1),
        (pa.array([2**64 - 1], pa.uint64()), "uint64", 2**64 - 1),
        (pa.array([0.5], pa.float16()), "float16", 0.5),
        (pa.array([1.5], pa.float32()), "float32", 1.5),
        (pa.array([True]), "bool", True),
        (pa.nulls(1), "string", None),
        (pa.array([DAY], pa.timestamp("us")), "timestamp[us]", DAY),
        (
            pa.array([DAY], pa.timestamp("us", "Europe/Berlin")),
            "timestamp[us, Europe/Berlin]",
            DAY.replace(tzinfo=datetime.UTC),
        ),
        (pa.array([DAY.date()]), "date32", DAY.date()),
        (pa.array([DAY.time()]), "time64[us]", DAY.time()),
        (
            pa.array([datetime.timedelta(seconds=2)], pa.duration("ms")),
            "duration[ms]",
            datetime.timedelta(seconds=2),
        ),
        (pa.array([decimal.Decimal("1.50")]), "decimal128(3, 2)", decimal.Decimal("1.50")),
        (pa.array([b"\xff\x00"]), "binary", b"\xff\x00"),
        (pa.array([b"\xff\x00"]).dictionary_encode(), "binary", b"\xff\x00"),
        (pa.array([b"\xff\x00"], pa.binary(2)), "fixed_size_binary[2]", b"\xff\x00"),
        (pa.array([UUID.bytes], pa.uuid()), "string", str(UUID)),
        (pa.array(['{"a": 1}'], pa.json_()), "json", '{"a": 1}'),
        (
            pa.array([{"a": [1, None], "d": DAY.date(), "b": b"\xff"}]),
            '{"struct":{"a":{"list":"int64"},"d":"date32","b":"binary"}}',
            {"a": [1, None], "d": DAY.date(), "b": b"\xff"},
        ),
        (pa.array([[1.0, 2.5]], pa.list_(pa.float32(), 2)), '{"list":"float32","size":2}', [1.0, 2.5]),
        (
            pa.array([[("k", 2**64 - 1)]], pa.map_(pa.string(), pa.uint64())),
            '{"map":["string","uint64"]}',
            [("k", 2**64 - 1)],
        ),
        (pa.array([["x"]]).cast(pa.list_(pa.large_string())), '{"list":"string"}', ["x"]),
        (pa.array([[None]]), '{"list":"null"}', [None]),
    ],
)
def test_a_column_keeps_its_type(tmp_path: Path, array: pa.Array, plan_type: str, stored: Any) -> None:
    pq.write_table(pa.table({"text": ["x"], "v.dotted": array}), tmp_path / "a.parquet")
    planned = plan(tmp_path / "a.parquet", tmp_path / "root")
    assert planned.summary.columns["v.dotted"] == plan_type
    assert planned.columns()["v.dotted"] == [stored]


def test_what_is_no_number_stays_so_in_numbers_and_lists(tmp_path: Path) -> None:
    nan = float("nan")
    table = pa.table({"text": ["x"], "flat": [nan], "list": pa.array([[nan, 1.0]], pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "a.parquet")
    found = plan(tmp_path / "a.parquet", tmp_path / "root").columns()
    assert str(found) == "{'text': ['x'], 'flat': [nan], 'list': [[nan, 1.0]]}"


FAR = datetime.datetime(3000, 1, 1)


@pytest.mark.parametrize(
    ("first", "second", "plan_type", "stored"),
    [
        (pa.array([1]), pa.array([1.5]), "float64", [1.0, 1.5]),
        (pa.array([2**60]), pa.array([1.5]), "json", ["1152921504606846976", "1.5"]),
        (pa.array([1]), pa.array(["a"]), "json", ["1", '"a"']),
        (pa.array([1]), pa.nulls(1), "int64", [1, None]),
        (pa.array([1], pa.int8()), pa.array([300], pa.int32()), "int32", [1, 300]),
        (pa.array([-1], pa.int8()), pa.array([2**40], pa.uint64()), "int64", [-1, 2**40]),
        (pa.array([-1]), pa.array([2**64 - 1], pa.uint64()), "json", ["-1", "18446744073709551615"]),
        (pa.array([0.5], pa.float32()), pa.array([0.1]), "float64", [0.5, 0.1]),
        (pa.array([DAY.date()]), pa.array(["a"]), "string", ["2020-01-02", "a"]),
        (pa.array([DAY], pa.timestamp("ms")), pa.array([DAY], pa.timestamp("us")), "timestamp[us]", None),
        (
            pa.array([DAY], pa.timestamp("ns")),
            pa.array([FAR], pa.timestamp("us")),
            "string",
            ["2020-01-02T03:04:05.000678000", "3000-01-01T00:00:00.000000"],
        ),
        (
            pa.array([decimal.Decimal("1.5")]),
            pa.array([decimal.Decimal("100.25")]),
            "decimal128(5, 2)",
            [decimal.Decimal("1.50"), decimal.Decimal("100.25")],
        ),
        (pa.array([decimal.Decimal("1.5")]), pa.array([2]), "json", ['"1.5"', "2"]),
        (pa.array([b"\xff"]), pa.array([b"ab"], pa.binary(2)), "binary", [b"\xff", b"ab"]),
        (pa.array([[1]]), pa.array([2]), "json", ["[1]", "2"]),
        (pa.array([[None]]), pa.array([[2]]), '{"list":"int64"}', [[None], [2]]),
        (pa.array([[0.1]], pa.list_(pa.float32())), pa.array([["a"]]), "json", ["[0.1]", '["a"]']),
    ],
)
def test_files_of_different_schemas(
    tmp_path: Path, first: pa.Array, second: pa.Array, plan_type: str, stored: list[Any] | None
) -> None:
    pq.write_table(pa.table({"text": ["x"], "v": first}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"v": second, "text": ["y"], "more": [True]}), tmp_path / "b.parquet")
    planned = plan(tmp_path, tmp_path / "out")
    assert planned.summary.columns == {"text": "string", "v": plan_type, "more": "bool"}
    found = planned.columns()
    assert found["v"] == (stored if stored is not None else [DAY.replace(microsecond=0), DAY])
    assert found["more"] == [None, True]


def test_ids_templates_and_invalid_utf8(tmp_path: Path) -> None:
    broken = pa.array([b"\xff", b"fine", b"x"]).view(pa.string())
    table = pa.table({"title": broken, "n": [1, 2, None], "key": pa.array([7, None, 9], pa.int32())})
    pq.write_table(table, tmp_path / "a.parquet")
    planned = plan(tmp_path / "a.parquet", tmp_path / "root", text_template="{title} {n}", id_column="key")
    assert planned.texts() == ["fine 2"]
    assert planned.ids() == ["g0001-00000:1"]
    assert [(r.record_id, r.code) for r in planned.rejections()] == [("7", "invalid_utf8"), ("9", "no_text")]


@pytest.mark.parametrize(
    ("data_type", "value", "text"),
    [
        (pa.timestamp("ns"), 1, "1970-01-01T00:00:00.000000001"),
        (pa.timestamp("ms", "Nowhere/Known"), 253_402_300_800_000, "10000-01-01T00:00:00.000Z"),
        (pa.time64("ns"), 1, "00:00:00.000000001"),
        (pa.duration("ns"), 1, "1ns"),
        (pa.date32(), 2**30, "2941775-04-07"),
        (pa.timestamp("ms"), -(2**40) * 1000, "-32873-11-12T23:23:44.000"),
    ],
)
def test_times_that_python_does_not_know_as_text(
    tmp_path: Path, data_type: pa.DataType, value: int, text: str
) -> None:
    times = pa.array([value, None], pa.int32() if pa.types.is_date(data_type) else pa.int64()).cast(data_type)
    columns = {
        "flat": times.slice(0, 1),
        "list": pa.ListArray.from_arrays([0, 2], times),
        "fixed": pa.FixedSizeListArray.from_arrays(times, 2),
        "record": pa.StructArray.from_arrays([times.slice(0, 1)], names=["at"]),
        "map": pa.MapArray.from_arrays([0, 2], ["k", "l"], times),
        "deep": pa.ListArray.from_arrays([0, 1], pa.ListArray.from_arrays([0, 2], times)),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", version="2.6")
    template = " ".join(f"{{{name}}}" for name in columns)
    planned = plan(tmp_path / "a.parquet", tmp_path / "root", text_template=template)
    deep = f'["{text}",null] ["{text}",null] {{"at":"{text}"}} [["k","{text}"],["l",null]] [["{text}",null]]'
    assert planned.texts() == [f"{text} {deep}"]


def test_too_large(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"text": ["x", "y" * 200, "z"], "a": ["", "", "a" * 200]}), tmp_path / "a.parquet"
    )
    planned = plan(tmp_path / "a.parquet", tmp_path / "root", {"max_record_bytes": 100})
    assert [(r.source_row, r.code) for r in planned.rejections()] == [(1, "too_large"), (2, "too_large")]


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not parquet at all" * 10])
def test_a_file_that_is_not_parquet(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.parquet.*source\.exclude"):
        plan(tmp_path / "a.parquet", tmp_path / "root")


def test_a_damaged_page_stops_the_shard_by_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(5000)]}), tmp_path / "a.parquet")
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[4:400] = bytes(396)
    (tmp_path / "a.parquet").write_bytes(data)
    planned = plan(tmp_path / "a.parquet", tmp_path / "root")
    with pytest.raises(SourceError, match=r"a\.parquet"):
        planned.records()


def test_a_column_name_that_is_no_utf_8(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "naive": [1]}), tmp_path / "a.parquet", store_schema=False)
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data.replace(b"naive", b"na\xefve"))
    with pytest.raises(SourceError, match=r"a\.parquet: is no whole Parquet file .*source\.exclude"):
        plan(tmp_path / "a.parquet", tmp_path / "root")


def test_a_footer_that_contradicts_itself(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["ab"] * 12_345}), tmp_path / "base", store_schema=False)
    data = (tmp_path / "base").read_bytes()
    written, other = b"\xf2\xc0\x01", b"\xf4\xc0\x01"  # 12,345 and 12,346 as a footer has them
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    pieces = data[start:].split(written)
    found: list[tuple[int, int, int]] = []
    for number in range(1, len(pieces)):
        footer = written.join(pieces[:number]) + other + written.join(pieces[number:])
        (tmp_path / "a.parquet").write_bytes(data[:start] + footer)
        metadata = pq.read_metadata(tmp_path / "a.parquet")
        group = metadata.row_group(0)
        figures = metadata.num_rows, group.num_rows, group.column(0).num_values
        if len(set(figures)) == 1:
            continue  # a figure of the statistics
        found.append(figures)
        with pytest.raises(
            SourceError, match=r"a\.parquet: is no whole Parquet file \(by the footer, .*12,346"
        ):
            plan(tmp_path / "a.parquet", tmp_path / f"root{number}")
    assert len(found) == 3


def test_rows_are_taken_from_views_of_text() -> None:
    batch = pa.record_batch({"v": pa.array(["a", "b", "c", "d"], pa.string_view()), "n": range(4)})
    taken = rows_of(batch, np.array([0, 2, 3]))
    assert taken.to_pydict() == {"v": ["a", "c", "d"], "n": [0, 2, 3]}
    assert rows_of(batch, np.array([], np.int64)).num_rows == 0
