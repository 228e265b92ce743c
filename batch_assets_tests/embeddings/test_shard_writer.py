import hashlib
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_assets.embeddings.accounting import account_shard
from batch_assets.embeddings.parquet_files import GROUP_ROWS
from batch_assets.embeddings.shard_writer import ShardWriter
from batch_assets.embeddings.validation import VectorError
from batch_assets.errors import ConfigurationError
from batch_assets.storage import LocalStorage, Storage, open_storage
from batch_assets_tests.embeddings.builders import (
    DIMENSIONS,
    make_outcomes,
    marker_of,
    unit_vectors,
    write_shard,
)
from batch_assets_tests.waiting import PATIENCE_SECONDS

SHARD = "g0001-00000"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path))


def read(storage: Storage, path: str) -> pa.Table:
    with storage.open_input(path) as file:
        return pq.read_table(file)


def test_rows_land_in_the_two_files_in_source_order(storage: Storage) -> None:
    columns = {"title": "string", "year": "int64", "extra": "json"}
    values = {"title": ["a", "b", None], "year": [1, None, 3], "extra": ['{"x":1}', "[]", None]}
    writer = ShardWriter(storage, SHARD, 7, columns, "float32")
    writer.write(make_outcomes("erfe", columns=columns, values=values))
    files = writer.close(DIMENSIONS)

    table = read(storage, "shards/g0001-00000/embeddings-7.parquet")
    assert table.schema.names == [
        "record_id", "source_file", "source_row", "title", "year", "extra", "embedding", "token_count",
    ]  # fmt: skip
    assert table.column("record_id").to_pylist() == ["id-0", "id-3"]
    assert table.column("title").to_pylist() == ["a", None]
    assert table.column("year").to_pylist() == [1, 3]
    assert table.schema.field("source_row").type == pa.int64()
    assert table.schema.field("token_count").type == pa.int32()
    np.testing.assert_array_equal(np.array(table.column("embedding").to_pylist(), "f4"), unit_vectors([0, 3]))

    failures = read(storage, files.failures.path)
    assert failures.to_pylist() == [
        {"record_id": "id-1", "source_file": "part.jsonl", "source_row": 1, "stage": "reject",
         "error_code": "no_text", "error_message": "has no text", "attempts": 0},
        {"record_id": "id-2", "source_file": "part.jsonl", "source_row": 2, "stage": "inference",
         "error_code": "model_error", "error_message": "the model raised", "attempts": 2},
    ]  # fmt: skip
    for file in files.files:
        data = storage.read(file.path)
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.bytes, file.sha256)
    assert (files.embedded, files.rejected, files.failed, files.tokens) == (2, 1, 1, 1 + 4)
    assert files.token_histogram == {1: 1, 4: 1}
    assert files.norms["min"] == pytest.approx(1, abs=1e-6)


def test_bad_input_found_at_the_model_is_stored_and_counted_as_rejected(storage: Storage) -> None:
    outcomes = make_outcomes("ferff")
    broken, _, model = outcomes.failures
    outcomes.failures = [
        replace(broken, code="broken_image", message="cannot be decoded", rejected=True),
        outcomes.failures[1],
        replace(model, code="image_missing", message="HTTP 404", rejected=True),
    ]
    writer = ShardWriter(storage, SHARD, 1, {}, "float32")
    writer.write(outcomes)
    files = writer.close(DIMENSIONS)
    assert (files.embedded, files.rejected, files.failed) == (1, 3, 1)
    rows = read(storage, files.failures.path).select(["source_row", "stage", "error_code"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        (0, "reject", "broken_image"), (2, "reject", "no_text"),
        (3, "inference", "model_error"), (4, "reject", "image_missing"),
    ]  # fmt: skip
    found = account_shard(storage, 5, marker_of(files, SHARD, 1, 5))
    assert (found.embedded, found.rejected, found.failed) == (1, 3, 1)


@pytest.mark.parametrize("vector_dtype", ["float32", "float16"])
def test_vectors_are_plain_uncompressed_and_readable_everywhere(storage: Storage, vector_dtype: str) -> None:
    marker = write_shard(storage, SHARD, "e" * 50, vector_dtype=vector_dtype)
    path = f"{storage.uri}/{marker.embeddings.path}"
    column = pq.ParquetFile(path).metadata.row_group(0).column(3)
    assert column.path_in_schema == "embedding.list.element"
    assert (column.compression, column.statistics, column.has_dictionary_page) == (
        "UNCOMPRESSED",
        None,
        False,
    )
    assert "PLAIN" in column.encodings

    expected = unit_vectors(range(50)).astype(vector_dtype)
    assert pq.read_schema(path).field("embedding").type.list_size == DIMENSIONS
    frame = pl.read_parquet(path)
    assert isinstance(frame.schema["embedding"], pl.Array)
    np.testing.assert_array_equal(frame["embedding"].to_numpy(), expected)


def test_duckdb_reads_the_vectors(storage: Storage) -> None:
    duckdb = pytest.importorskip("duckdb")
    marker = write_shard(storage, SHARD, "eee")
    found = duckdb.sql(f"select embedding from '{storage.uri}/{marker.embeddings.path}'").fetchall()
    np.testing.assert_allclose([row[0] for row in found], unit_vectors(range(3)), rtol=1e-6)


def test_row_groups_and_bytes_do_not_depend_on_the_batches(storage: Storage) -> None:
    digests = set()
    for fence, sizes in enumerate([[20_000], [7_000, 13_000], [1, 8_191, 8_192, 3_616]]):
        writer = ShardWriter(storage, SHARD, fence, {}, "float32")
        first = 0
        for size in sizes:
            writer.write(make_outcomes("e" * size, first))
            first += size
        digests.add(writer.close().embeddings.sha256)
        metadata = pq.read_metadata(f"{storage.uri}/shards/{SHARD}/embeddings-{fence}.parquet")
        groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        assert groups == [GROUP_ROWS, GROUP_ROWS, 20_000 - 2 * GROUP_ROWS]
    assert len(digests) == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(alphabet="erf", max_size=12), max_size=6))
def test_any_split_of_any_outcomes_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, batches: list[str]
) -> None:
    storage = open_storage(str(tmp_path_factory.mktemp("root")))
    kinds = "".join(batches)
    writer = ShardWriter(storage, SHARD, 1, {}, "float32")
    first = 0
    for batch in batches:
        writer.write(make_outcomes(batch, first))
        first += len(batch)
    marker = marker_of(writer.close(DIMENSIONS), SHARD, 1, len(kinds))
    accounting = account_shard(storage, len(kinds), marker)
    assert (accounting.embedded, accounting.rejected, accounting.failed) == tuple(map(kinds.count, "erf"))
    rows = read(storage, marker.embeddings.path).column("source_row").to_pylist()
    assert rows == [row for row, kind in enumerate(kinds) if kind == "e"]
    rows = read(storage, marker.failures.path).column("source_row").to_pylist()
    assert rows == [row for row, kind in enumerate(kinds) if kind != "e"]


def test_a_shard_without_any_embedded_row_is_a_valid_file(storage: Storage) -> None:
    marker = write_shard(storage, SHARD, "rr", dimensions=384)
    table = read(storage, marker.embeddings.path)
    assert (table.num_rows, table.schema.field("embedding").type.list_size) == (0, 384)
    assert (marker.norms, marker.token_histogram) == ({}, {})


def spoil(vectors: np.ndarray, value: float) -> np.ndarray:
    vectors[1, 2] = value
    return vectors


@pytest.mark.parametrize(
    ("vectors", "dtype", "said"),
    [
        (spoil(unit_vectors(range(3)), np.nan), "float32", "row 1 is not finite"),
        (spoil(unit_vectors(range(3)), np.inf), "float32", "row 1 is not finite"),
        (spoil(unit_vectors(range(3)), 1e30), "float32", "row 1 has length"),
        (spoil(unit_vectors(range(3)), 70_000.0), "float16", "row 1 is not finite"),  # overflows float16
        (unit_vectors(range(3)) * np.float32(1.002), "float32", "has length 1.002"),
        (np.zeros((3, DIMENSIONS), dtype=np.float32), "float32", "has length 0.0"),
        (unit_vectors(range(3), 5), "float32", "expected"),
    ],
)
def test_no_unsound_vector_is_stored(storage: Storage, vectors: np.ndarray, dtype: str, said: str) -> None:
    writer = ShardWriter(storage, SHARD, 1, {}, dtype)
    writer.write(make_outcomes("eee"))
    outcomes = make_outcomes("eee", 3)
    outcomes.vectors = vectors
    with pytest.raises(VectorError, match=said):
        writer.write(outcomes)
    writer.abort()
    assert list(storage.list()) == []


def test_unnormalized_vectors_are_stored_when_told(storage: Storage) -> None:
    writer = ShardWriter(storage, SHARD, 1, {}, "float32", normalized=False)
    outcomes = make_outcomes("ee")
    outcomes.vectors = outcomes.vectors * np.float32(3)
    writer.write(outcomes)
    assert writer.close().norms["mean"] == pytest.approx(3)


def drop_failure(outcomes):
    outcomes.failures.pop()


def embed_twice(outcomes):
    outcomes.rows[1] = outcomes.rows[0]


def skip_a_record(outcomes):
    outcomes.records.rejections.pop()
    outcomes.records.ordinals[-1] += 1


def swap_records(outcomes):
    ordinals = outcomes.records.ordinals
    ordinals[0], ordinals[1] = ordinals[1], ordinals[0]


def lose_a_vector(outcomes):
    outcomes.vectors = outcomes.vectors[:-1]


@pytest.mark.parametrize("spoiled", [drop_failure, embed_twice, skip_a_record, swap_records, lose_a_vector])
def test_incomplete_outcomes_are_refused(storage: Storage, spoiled) -> None:
    outcomes = make_outcomes("eefre")
    spoiled(outcomes)
    writer = ShardWriter(storage, SHARD, 1, {}, "float32")
    with pytest.raises(ValueError, match=SHARD):
        writer.write(outcomes)
    writer.abort()


def test_a_stretch_left_out_is_refused(storage: Storage) -> None:
    writer = ShardWriter(storage, SHARD, 1, {}, "float32")
    writer.write(make_outcomes("ee"))
    with pytest.raises(ValueError, match="from ordinal 2 on"):
        writer.write(make_outcomes("ee", first=3))
    writer.abort()


@pytest.mark.parametrize("name", ["embedding", "record_id", "token_count"])
def test_a_column_of_a_reserved_name_is_refused(storage: Storage, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'{name}' cannot be passed through"):
        ShardWriter(storage, SHARD, 1, {name: "string"}, "float32")


def test_lone_surrogates_in_a_rejection_do_not_stop_the_shard(storage: Storage) -> None:
    outcomes = make_outcomes("er")
    object.__setattr__(outcomes.records.rejections[0], "message", "text \ud800 is not Unicode")
    writer = ShardWriter(storage, SHARD, 1, {}, "float32")
    writer.write(outcomes)
    files = writer.close()
    assert read(storage, files.failures.path).column("error_message").to_pylist() == ["text ? is not Unicode"]


class FullDisk(LocalStorage):
    """A storage whose files take 100 kB and then no more; `opened` is set when writing begins."""

    def open_output(self, path: str):
        output = super().open_output(path)
        write, room = output.write, [100_000]

        def limited(data) -> int:
            room[0] -= len(data)
            if room[0] < 0:
                raise OSError(28, "No space left on device")
            return write(data)

        output.write = limited  # type: ignore[method-assign]
        return output


def test_an_error_of_the_writing_thread_surfaces_and_leaves_nothing(tmp_path: Path) -> None:
    storage = FullDisk(str(tmp_path))
    writer = ShardWriter(storage, SHARD, 1, {}, "float32")
    with pytest.raises(OSError, match="No space left"):  # noqa: PT012
        for batch in range(10):
            writer.write(make_outcomes("e" * 4096, batch * 4096))
        writer.close()
    writer.abort()
    assert list(storage.list()) == []


class GatedDisk(LocalStorage):
    """A storage whose files take nothing while its gate is closed."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.gate = threading.Event()
        self.gate.set()

    def open_output(self, path: str):
        output = super().open_output(path)
        write = output.write
        output.write = lambda data: (self.gate.wait(PATIENCE_SECONDS), write(data))[1]  # type: ignore[method-assign]
        return output


def test_writing_happens_behind_the_caller(tmp_path: Path) -> None:
    storage = GatedDisk(str(tmp_path))
    writer = ShardWriter(storage, SHARD, 1, {}, "float32")
    storage.gate.clear()
    writer.write(make_outcomes("e" * 9000))  # more than a row group: the thread is at the gate now
    writer.write(make_outcomes("e" * 10, 9000))
    storage.gate.set()
    assert writer.close().embedded == 9010
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("write-")]


class NoFailuresFile(LocalStorage):
    """A storage that cannot finish a failures file."""

    def open_output(self, path: str):
        output = super().open_output(path)
        if "failures" in path:
            output.close = lambda: (_ for _ in ()).throw(OSError(5, "Input/output error"))  # type: ignore[method-assign]
        return output


def test_giving_up_removes_the_file_that_was_finished(tmp_path: Path) -> None:
    storage = NoFailuresFile(str(tmp_path))
    writer = ShardWriter(storage, SHARD, 1, {}, "float32")
    writer.write(make_outcomes("ee"))
    with pytest.raises(OSError, match="Input/output"):
        writer.close()
    writer.abort()
    assert list(storage.list()) == []
