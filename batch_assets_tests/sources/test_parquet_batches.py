"""Parquet files that decode to far more than they take: bounded batches, and records too large by themselves."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.errors import SourceError, StorageError
from batch_assets.sources.base import BATCH_BYTES
from batch_assets.sources.decoded import batch_bytes
from batch_assets.sources.parquet_batches import batches
from batch_assets.sources.parquet_files import parquet_errors
from batch_assets.storage import open_storage
from batch_assets_tests.sharding.planning import plan
from batch_assets_tests.sources.tars import tar_bytes


def repeated(value: str, times: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array([0] * times, pa.int32()), pa.array([value]))


def lists(values: pa.Array, offsets: Sequence[int]) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def packed(columns: dict[str, Any], *, store_schema: bool = True, **options: Any) -> bytes:
    """A Parquet file of these columns."""
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, compression="zstd", store_schema=store_schema, **options)
    return file.getvalue()


def read(data: bytes, most: int = 2_048) -> Iterator[tuple[int, pa.RecordBatch]]:
    """All rows of a file in batches."""

    def reopen(dictionaries: Sequence[str]) -> pq.ParquetFile:
        return pq.ParquetFile(pa.BufferReader(data), read_dictionary=list(dictionaries), pre_buffer=False)

    file = reopen([])
    return batches(file, reopen, file.schema_arrow.names, most, 0, file.metadata.num_rows)


@pytest.fixture
def pool() -> Iterator[pa.MemoryPool]:
    """Counts what Arrow allocates during the test."""
    usual = pa.default_memory_pool()
    counting = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(counting)
    yield counting
    pa.set_memory_pool(usual)


LONG, LONGER = "x" * 50_000, "y" * 1_100_000
SMALL = [f"text {n}" for n in range(3_000)]


@pytest.mark.parametrize(
    ("columns", "options"),
    [
        ({"text": repeated(LONG, 60_000)}, {}),
        ({"text": repeated(LONG, 60_000)}, {"store_schema": False}),
        ({"text": repeated(LONGER, 2_048)}, {"store_schema": False}),
        ({"text": ["a"] * 10_000, "more": repeated(LONG, 10_000)}, {"store_schema": False}),
        ({"tags": lists(repeated(LONG, 10_000), range(0, 10_001, 100))}, {"store_schema": False}),
        ({"tags": lists(repeated(LONG, 10_000), range(0, 10_001, 100))}, {}),
        ({"n": lists(pa.array([0] * 10**7, pa.int64()), range(0, 10**7 + 1, 10**5))}, {}),
        ({"n": lists(pa.nulls(10**7), range(0, 10**7 + 1, 10**5))}, {}),
        ({"text": pa.array([LONG + str(n) for n in range(600)])},
         {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}),
        ({"text": pa.array([*SMALL, *[LONG] * 4_000]).dictionary_encode()}, {"store_schema": False}),
    ],
    ids=["dictionary", "text", "larger text", "other column", "nested text", "nested dictionary", "numbers", "nulls",
         "shared prefix", "large texts late"],
)  # fmt: skip
def test_no_batch_takes_more_than_its_bound_once_decoded(
    columns: dict[str, Any], options: dict[str, Any], pool: pa.MemoryPool
) -> None:
    data = packed(columns, **options)
    assert len(data) < 300_000
    row = 0
    for first, batch in read(data):
        assert first == row
        assert batch_bytes(batch) <= BATCH_BYTES
        row += len(batch)
    assert row == len(next(iter(columns.values())))
    assert pool.max_memory() <= 128 * 2**20  # of which the widest of these files takes 92 to write


def test_batches_keep_their_rows_and_their_order() -> None:
    values = [SMALL[n] * (n % 7 * n % 90) for n in range(3_000)]
    columns = {"text": values, "cat": [text[:5] for text in SMALL], "n": list(range(3_000))}
    found = list(read(packed(columns, row_group_size=700)))
    assert [row for _, batch in found for row in batch.to_pylist()] == pa.table(columns).to_pylist()
    assert [first for first, _ in found] == [batch.column("n")[0].as_py() for _, batch in found]


def test_ordinary_rows_are_read_many_at_once() -> None:
    lengths = [len(batch) for _, batch in read(packed({"text": SMALL * 7}))]
    assert len(lengths) < 15 and max(lengths) == 2_048


def test_repeated_texts_become_records(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(packed({"text": repeated(LONGER, 100)}, store_schema=False))
    planned = plan(tmp_path / "a.parquet", tmp_path / "root")
    for records in planned.records():
        assert sum(map(len, records.texts)) <= BATCH_BYTES
    assert planned.rows() == [("a.parquet", row) for row in range(100)]
    assert planned.rejections() == []


def test_a_record_of_gigabytes_is_rejected_and_the_others_are_read(tmp_path: Path) -> None:
    tags = lists(repeated(LONG, 60_000), [0, 1, 59_999, 60_000])
    data = packed({"text": ["a", "b", "c"], "tags": tags}, store_schema=False)
    (tmp_path / "a.parquet").write_bytes(data)
    planned = plan(tmp_path / "a.parquet", tmp_path / "root")
    assert planned.texts() == ["a", "c"]
    assert [(r.source_row, r.code) for r in planned.rejections()] == [(1, "too_large")]
    assert planned.columns()["tags"] == [[LONG]] * 2


def test_a_text_over_the_limit_among_small_ones(tmp_path: Path) -> None:
    texts = ["a", LONGER, "b", LONGER, "c"]
    (tmp_path / "a.parquet").write_bytes(packed({"text": pa.array(texts).dictionary_encode()}))
    planned = plan(tmp_path / "a.parquet", tmp_path / "root", {"max_record_bytes": 1_000_000})
    assert planned.texts() == ["a", "b", "c"]
    assert [(r.source_row, r.code) for r in planned.rejections()] == [(1, "too_large"), (3, "too_large")]


class Limited:
    """A Parquet file of which Arrow decodes at most `most` rows at once."""

    def __init__(self, file: pq.ParquetFile, most: int) -> None:
        self.metadata, self.reader = file.metadata, self
        self._file, self._most, self._rows = file, most, 0

    def set_batch_size(self, rows: int) -> None:
        self._rows = rows
        self._file.reader.set_batch_size(rows)

    def iter_batches(self, rows: int, **options: Any) -> Iterator[pa.RecordBatch]:
        self._rows = rows
        for batch in self._file.iter_batches(rows, **options):
            if self._rows > self._most:
                raise pa.ArrowCapacityError("array cannot contain more than 2147483646 bytes")
            yield batch


def test_rows_that_are_too_many_for_arrow_are_read_fewer_at_once() -> None:
    columns = {"text": SMALL, "n": list(range(3_000))}
    file: Any = Limited(pq.ParquetFile(pa.BufferReader(packed(columns, row_group_size=1_000))), 3)
    found = batches(file, lambda _: file, ["text", "n"], 2_048, 500, 2_500)
    rows = [row for _, batch in found for row in batch.to_pylist()]
    assert rows == pa.table(columns).to_pylist()[500:2_500]


@pytest.mark.parametrize("error", [pa.ArrowCapacityError("2 GiB"), pa.ArrowNotImplementedError("nested")])
def test_a_limit_of_arrow_is_not_the_fault_of_the_file(tmp_path: Path, error: Exception) -> None:
    file: Any = Limited(pq.ParquetFile(pa.BufferReader(packed({"text": SMALL}, use_dictionary=False))), 0)
    with pytest.raises(pa.ArrowCapacityError):
        list(batches(file, lambda _: file, ["text"], 2_048, 0, 3_000))
    with (
        pytest.raises(SourceError, match=r"a\.parquet: cannot be decoded here.*; write it anew"),
        parquet_errors(open_storage(str(tmp_path)), "a.parquet"),
    ):
        raise error


def test_a_machine_without_memory_is_not_the_fault_of_the_file(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"a\.parquet: malloc; let what else runs here end"),
        parquet_errors(open_storage(str(tmp_path)), "a.parquet"),
    ):
        raise pa.ArrowMemoryError("malloc")


def test_a_row_group_with_fewer_rows_than_its_footer_says(tmp_path: Path) -> None:
    data = packed({"text": [str(n) for n in range(77)]}, use_dictionary=False)
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    footer = data[start:-8].replace(b"\x9a\x01", b"\x9c\x01")  # 77 becomes 78, as Thrift writes it
    (tmp_path / "a.parquet").write_bytes(data[:start] + footer + data[-8:])
    planned = plan(tmp_path / "a.parquet", tmp_path / "root")
    with pytest.raises(
        SourceError, match=r"a\.parquet: is no whole Parquet file \(row group 0 ends before row 77"
    ):
        planned.records()


def test_metadata_beside_a_tar_that_do_not_fit_in_memory(tmp_path: Path) -> None:
    columns = {"key": [str(n) for n in range(600)], "caption": repeated(LONGER, 600)}
    (tmp_path / "0.parquet").write_bytes(packed(columns, store_schema=False))
    (tmp_path / "0.tar").write_bytes(tar_bytes([("0.jpg", b"image")]))
    with pytest.raises(SourceError, match=r"0\.parquet: decodes to more than .* split the tar"):
        plan(tmp_path / "0.tar", tmp_path / "root", format="webdataset")


def test_short_metadata_beside_a_tar_count_as_what_python_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batch_assets.sources.companion._MOST_BYTES", 4 * 2**20)
    (tmp_path / "0.parquet").write_bytes(packed({"key": list(range(10_000))}))
    (tmp_path / "0.tar").write_bytes(tar_bytes([("0.jpg", b"image")]))
    with pytest.raises(SourceError, match=r"0\.parquet: decodes to more than"):
        plan(tmp_path / "0.tar", tmp_path / "root", format="webdataset")


def test_rejected_records_of_long_ids_are_not_gathered(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(packed({"text": [""] * 40, "id": repeated(LONGER, 40)}))
    planned = plan(tmp_path / "a.parquet", tmp_path / "root", id_column="id", columns=[])
    found = planned.records()
    assert max(sum(len(item.record_id) for item in records.rejections) for records in found) <= BATCH_BYTES
    assert {item.record_id for records in found for item in records.rejections} == {LONGER}


def test_an_id_longer_than_a_record_may_be_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(packed({"text": ["a", "b"], "id": ["1", "x" * 101]}))
    limits = {"max_record_bytes": 100}
    planned = plan(tmp_path / "a.parquet", tmp_path / "root", limits, id_column="id", columns=[])
    assert planned.ids() == ["1"]
    assert [(r.record_id, r.code) for r in planned.rejections()] == [("g0001-00000:1", "too_large")]


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "none"},
        {"use_dictionary": False, "write_batch_size": 8},
        {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY", "compression": "none"},
    ],
    ids=["dictionary", "compressed", "shared prefix"],
)
def test_long_texts_behind_thousands_of_short_ones(options: dict[str, Any], pool: pa.MemoryPool) -> None:
    text = pa.DictionaryArray.from_arrays([0] * 50_000 + [1] * 300, ["x", LONGER])
    file = io.BytesIO()
    columns = {"text": text.dictionary_decode() if "use_dictionary" in options else text}
    options = {"compression": "zstd", "store_schema": False, **options}
    pq.write_table(pa.table(columns), file, **options)
    del columns
    counting = pa.proxy_memory_pool(pool)
    pa.set_memory_pool(counting)
    assert sum(len(batch) for _, batch in read(file.getvalue())) == 50_300
    assert counting.max_memory() <= 160 * 2**20


def test_long_lists_behind_thousands_of_short_ones(pool: pa.MemoryPool) -> None:
    """Run lengths make a list of two million numbers a few bytes: each is decoded by itself."""
    ends = [*range(3_001), *(3_000 + 2_000_000 * (number + 1) for number in range(12))]
    values = pa.DictionaryArray.from_arrays(pa.array(np.zeros(ends[-1], np.int32)), pa.array([7]))
    lists = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values.dictionary_decode())
    file = io.BytesIO()
    pq.write_table(pa.table({"text": ["x"] * 3_012, "n": lists}), file, store_schema=False)
    del values, lists
    assert len(file.getvalue()) < 100_000
    counting = pa.proxy_memory_pool(pool)
    pa.set_memory_pool(counting)
    assert sum(len(batch) for _, batch in read(file.getvalue())) == 3_012
    assert counting.max_memory() <= 100 * 2**20  # of 192 MiB that all take together
