"""Files that other tools have written are read as the tools themselves read them."""

import datetime as dt
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from batch_assets.errors import SourceError
from batch_assets_tests.sharding.planning import plan
from batch_assets_tests.sources.other_tools import (
    arrow_files,
    duckdb_files,
    line_files,
    pandas_files,
    polars_files,
)
from batch_assets_tests.sources.other_tools.documented import assert_as_documented, assert_as_json

PARQUET = {**arrow_files.FILES, **polars_files.FILES, **duckdb_files.FILES, **pandas_files.FILES}


@pytest.mark.parametrize("write", PARQUET.values(), ids=PARQUET)
def test_parquet(tmp_path: Path, write: Callable[[Path], pa.Table]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    own = write(source)
    id_column = "id" if "id" in own.column_names else None
    assert_as_documented(plan(source, tmp_path / "root", id_column=id_column), own)


@pytest.mark.parametrize(("name", "write"), line_files.JSON.values(), ids=line_files.JSON)
def test_json_lines(tmp_path: Path, name: str, write: Callable[[Path], object]) -> None:
    write(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    if name.endswith(".gz"):
        data = gzip.decompress(data)
    if name.endswith(".zst"):
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    own = [json.loads(line) for line in data.decode().split("\n") if line]
    assert_as_json(plan(tmp_path / name, tmp_path / "root"), own)


@pytest.mark.parametrize(("name", "write"), line_files.CSV.values(), ids=line_files.CSV)
def test_csv(tmp_path: Path, name: str, write: Callable[[Path], pa.Table]) -> None:
    own = write(tmp_path / name)
    assert_as_documented(plan(tmp_path / name, tmp_path / "root"), own)


def test_what_arrow_cannot_decode_is_refused_by_name(tmp_path: Path) -> None:
    pl.DataFrame({"text": ["x"], "v": pl.Series([1], dtype=pl.Int128)}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(
        SourceError, match=r"a\.parquet: cannot be decoded here \(Integers with more than 64 bits"
    ):
        plan(tmp_path / "a.parquet", tmp_path / "root")
    rows = "SELECT 'x' AS text, [1, 2]::INT[2] AS v UNION ALL SELECT 'y', NULL"
    duckdb_files.database().execute(f"COPY ({rows}) TO '{tmp_path}/b.parquet'")
    with pytest.raises(
        SourceError, match=r"b\.parquet: is no whole Parquet file \(Length spanned by list offsets"
    ):
        plan(tmp_path / "b.parquet", tmp_path / "root").records()


def test_names_of_columns(tmp_path: Path) -> None:
    """Names that differ in case stay apart; dots are no paths, spaces and nothing at all are names."""
    values = {
        "text": ["x"],
        "": [1],
        "a b": [2],
        "a.b": [3],
        "a": [{"b": 4}],
        "A": [5],
        "ü": [6],
        "id.x": [7],
    }
    pl.DataFrame(values).write_parquet(tmp_path / "a.parquet")
    planned = plan(
        tmp_path / "a.parquet", tmp_path / "root", id_column="id.x", text_template="{text} {a.b} {a}"
    )
    assert planned.columns() == {**{name: one for name, one in values.items() if name != "A"}, "user_A": [5]}
    assert (planned.ids(), planned.texts()) == (["7"], ['x 3 {"b":4}'])


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([["x"], [1], [2]], names=["text", "n", "n"]), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a\.parquet: has two columns named 'n'"):
        plan(tmp_path / "a.parquet", tmp_path / "root")


def test_files_of_several_tools_in_one_folder(tmp_path: Path) -> None:
    """Each has the same column in another type, one of them nothing but nulls, one no column of the kind."""
    day = dt.datetime(2024, 1, 2)
    pq.write_table(pa.table({"text": ["a"], "n": pa.nulls(1), "t": pa.nulls(1)}), tmp_path / "a.parquet")
    frame = pl.DataFrame({"text": ["b"], "n": pl.Series([7], dtype=pl.Int8), "t": [day]})
    frame.write_parquet(tmp_path / "b.parquet")
    rows = "SELECT 'c' AS text, 2.5::FLOAT AS n, TIMESTAMP_MS '2024-01-03 00:00:00' AS t"
    duckdb_files.written(tmp_path / "c.parquet", rows)
    pq.write_table(pa.table({"text": ["d"]}), tmp_path / "d.parquet")
    pq.write_table(pa.table({"text": pa.array([], pa.string()), "n": pa.nulls(0)}), tmp_path / "e.parquet")
    planned = plan(tmp_path, tmp_path / "root")
    assert planned.summary.columns == {"text": "string", "n": "float64", "t": "timestamp[us]"}
    assert planned.columns() == {
        "text": ["a", "b", "c", "d"],
        "n": [None, 7.0, 2.5, None],
        "t": [None, day, day.replace(day=3), None],
    }
    assert planned.result.notes == [
        "column 'n' is float32 and int8 in the source; it is stored as float64",
        "column 't' is timestamp[ms] and timestamp[us] in the source; it is stored as timestamp[us]",
    ]


@pytest.mark.parametrize("table", [pa.table({"text": pa.array([], pa.string())}), pa.table({})])
def test_files_without_rows_or_columns(tmp_path: Path, table: pa.Table) -> None:
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="hold no records"):
        plan(tmp_path, tmp_path / "root")
