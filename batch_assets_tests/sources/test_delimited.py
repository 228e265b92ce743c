"""CSV and tab-separated files, by way of the spool."""

import csv
import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_assets.errors import SourceError
from batch_assets.sources.base import Fault
from batch_assets.sources.delimited import delimited_rows
from batch_assets_tests.sharding.planning import plan


@pytest.mark.parametrize(
    ("data", "columns", "rejected"),
    [
        (b"id,text\n007,x\n", {"id": ["007"], "text": ["x"]}, []),
        (b"\xef\xbb\xbfid,text\r\n1,x\r\n", {"id": ["1"], "text": ["x"]}, []),
        (b'text,a\nx,\ny,""\n', {"text": ["x", "y"], "a": [None, ""]}, []),
        (b'text,a\n"",z\n,z\n"x",z', {"text": ["x"], "a": ["z"]}, [(0, "empty_text"), (1, "no_text")]),
        (b'text\n"one\ntwo, ""three"""\nx\n', {"text": ['one\ntwo, "three"', "x"]}, []),
        (b"text,a\n\nx,1\n\r\n\ny,2\n", {"text": ["x", "y"], "a": ["1", "2"]}, []),
        (
            b"text,a\nx\ny,1,2\nz,3\n",
            {"text": ["z"], "a": ["3"]},
            [(0, "malformed_row"), (1, "malformed_row")],
        ),
        (b'text,a\nx,1\n"never closed,2\ny,3\n', {"text": ["x"], "a": ["1"]}, [(1, "malformed_row")]),
        (b'text,a\n"x"y,1\nz,2\n', {"text": ["z"], "a": ["2"]}, [(0, "malformed_row")]),
        (b"text,a\nx,\xff\ny,1\n", {"text": ["y"], "a": ["1"]}, [(0, "invalid_utf8")]),
        (b"text,,text\nx,1,2\n", {"text": ["x"], "column_2": ["1"], "text_2": ["2"]}, []),
        (b"text,embedding\nx,1\n", {"text": ["x"], "user_embedding": ["1"]}, []),
        (b"text,a\n" + b"y" * 3000 + b",1\nx,2\n", {"text": ["x"], "a": ["2"]}, [(0, "too_large")]),
        (b'text,a\n"' + b"y,z\n" * 2000 + b'",1\nx,2\n', {"text": ["x"], "a": ["2"]}, [(0, "too_large")]),
        (b'text,a\n"y\n' + b"z" * 3000000 + b'",1\nx,2\n', {"text": ["x"], "a": ["2"]}, [(0, "too_large")]),
        (b'text,a\n"x"y,"1\n2,3\n4"\nz,5\n', {"text": ["z"], "a": ["5"]}, [(0, "malformed_row")]),
    ],
)
def test_rows(tmp_path: Path, data: bytes, columns: dict[str, Any], rejected: list[tuple[int, str]]) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    planned = plan(path, tmp_path / "root", shards={"max_record_bytes": 2000})
    assert planned.columns() == columns
    assert set(planned.summary.columns.values()) == {"string"}
    assert [(r.source_row, r.code) for r in planned.rejections()] == rejected
    assert [row for _, row in planned.rows()] == list(range(planned.summary.records))


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz"])
def test_tabs(tmp_path: Path, name: str) -> None:
    data = b'text\ta\n"x, y"\t\nz\t"\t"\n'
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert plan(tmp_path / name, tmp_path / "root").columns() == {"text": ["x, y", "z"], "a": [None, "\t"]}


def test_a_header_alone_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text,a\n")
    with pytest.raises(SourceError, match="no records"):
        plan(tmp_path / "a.csv", tmp_path / "root")


def test_cells_far_beyond_the_csv_modules_own_limit(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text\n" + b"x" * 1_000_000 + b"\n")
    assert plan(tmp_path / "a.csv", tmp_path / "root").texts() == ["x" * 1_000_000]


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_what_the_csv_module_writes_is_read_back(rows: list[tuple[str, str]], end: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=end)
    writer.writerows([("a", "b"), *rows])
    data = text.getvalue().encode()
    chunks = (data[start : start + 7] for start in range(0, len(data), 7))
    read = list(delimited_rows(chunks, "x.csv", 10_000))
    assert [row for row, _ in read] == list(range(len(rows)))
    lines = [line for _, line in read]
    assert not [line for line in lines if isinstance(line, Fault)]
    import orjson

    assert [tuple(orjson.loads(line).values()) for line in lines if isinstance(line, bytes)] == rows


def test_many_columns_of_one_name(tmp_path: Path) -> None:
    count = 20_000
    (tmp_path / "a.csv").write_text("text,a_2" + ",a" * count + "\nx,y" + ",1" * count + "\n")
    planned = plan(tmp_path / "a.csv", tmp_path / "root", columns=["a", "a_2", "a_3", f"a_{count + 1}"])
    assert planned.texts() == ["x"]
    assert planned.columns() == {"a": ["1"], "a_2": ["y"], "a_3": ["1"], f"a_{count + 1}": ["1"]}


def test_names_of_columns_count_as_part_of_each_record(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"text,{'n' * 90_000}\n" + "x,1\n" * 300)
    planned = plan(tmp_path / "a.csv", tmp_path / "root", {"max_record_bytes": 90_010}, columns=[])
    assert {(r.code, r.message[:6]) for r in planned.rejections()} == {("too_large", "90,019")}
    (spool,) = (tmp_path / "root" / "spool").iterdir()
    assert pq.read_table(spool).column("line").null_count == 300


def test_a_long_cell_beside_an_empty_one_takes_little_memory() -> None:
    cell = "a" * 500_000 + '""' * 250_000
    data = f'text,more,nothing\n"{cell}","",\n'.encode()
    tracemalloc.start()
    try:
        [(_, line)] = delimited_rows(iter([data]), "a.csv", 2_000_000)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(data)
    finally:
        tracemalloc.stop()
    assert isinstance(line, bytes)
    assert json.loads(line) == {"text": cell.replace('""', '"'), "more": "", "nothing": None}


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_header_of_millions_of_columns_is_refused_before_any_is_made(name: str) -> None:
    data = b"text" + (b"," if name == "a.csv" else b"\t") * 2_000_000 + b"\n"
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match=rf"{name}: the first row .* it has more than 100,000 columns"):
            list(delimited_rows(iter([data]), name, 10_000_000))
        assert tracemalloc.get_traced_memory()[1] < 10 * len(data)
    finally:
        tracemalloc.stop()
