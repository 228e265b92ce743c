"""Shards of a task `generate`, and that those of `embed` are what they were before there was another task."""

from pathlib import Path

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.embeddings.accounting import account_shard
from batch_assets.embeddings.marker import read_marker
from batch_assets.embeddings.schema import plan_columns
from batch_assets.embeddings.shard_writer import ShardWriter
from batch_assets.errors import AccountingError, ConfigurationError
from batch_assets.storage import Storage, open_storage
from batch_assets_tests.embeddings.builders import make_answers, make_outcomes, write_shard

SHARD = "g0001-00000"
COLUMNS, VALUES = {"title": "string", "year": "int64"}, {"title": ["a", "b", None], "year": [1, None, 3]}
NAMES = [
    "record_id",
    "source_file",
    "source_row",
    "title",
    "year",
    "response",
    "input_tokens",
    "output_tokens",
]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path))


def answering(storage: Storage) -> ShardWriter:
    return ShardWriter(storage, SHARD, 1, {}, "float32", task="generate")


def test_answers_land_in_place_of_vectors(storage: Storage) -> None:
    marker = write_shard(storage, SHARD, "erfe", columns=COLUMNS, values=VALUES, task="generate")
    table = pq.read_table(f"{storage.uri}/{marker.embeddings.path}")
    assert table.schema.names == NAMES
    own = [table.schema.field(name) for name in NAMES[-3:]]
    assert [(field.type, field.nullable) for field in own] == [
        (pa.string(), False),
        (pa.int32(), False),
        (pa.int32(), False),
    ]
    assert plan_columns(table.schema) == COLUMNS
    assert table.select(["record_id", "title", *NAMES[-3:]]).to_pylist() == [
        {"record_id": "id-0", "title": "a", "response": "answer to id-0", "input_tokens": 1, "output_tokens": 101},
        {"record_id": "id-3", "title": None, "response": "answer to id-3", "input_tokens": 4, "output_tokens": 104},
    ]  # fmt: skip
    assert (marker.tokens, marker.output_tokens, marker.task) == (5, 205, "generate")
    assert (marker.dimensions, marker.vector_dtype, marker.normalized, marker.norms) == (0, "", False, {})
    assert marker.token_histogram == {1: 1, 4: 1}
    accounting = account_shard(storage, 4, marker)
    assert accounting.line() == "accounting: planned=4 embedded=2 rejected=1 failed=1"


def test_other_readers_read_the_answers(storage: Storage) -> None:
    duckdb = pytest.importorskip("duckdb")
    path = f"{storage.uri}/{write_shard(storage, SHARD, 'eee', task='generate').embeddings.path}"
    frame = pl.read_parquet(path)
    assert frame.schema["response"] == pl.String
    expected = [(f"answer to id-{row}", row + 1, row + 101) for row in range(3)]
    assert frame.select("response", "input_tokens", "output_tokens").rows() == expected
    assert duckdb.sql(f"select response, input_tokens, output_tokens from '{path}'").fetchall() == expected


def test_answers_in_any_batches_give_the_same_bytes(storage: Storage) -> None:
    digests = set()
    for fence, sizes in enumerate([[9_000], [1, 8_191, 808], [4_000, 0, 5_000]]):
        writer = ShardWriter(storage, SHARD, fence, {}, "float32", task="generate")
        first = 0
        for size in sizes:
            writer.write(make_answers("e" * size, first))
            first += size
        digests.add(writer.close().embeddings.sha256)
    assert len(digests) == 1


@pytest.mark.parametrize("kinds", ["rr", "ff", ""])
def test_without_any_answer_the_file_is_there(storage: Storage, kinds: str) -> None:
    writer = answering(storage)
    writer.write(make_outcomes(kinds))  # nothing came out well, so no answers are named
    files = writer.close()
    table = pq.read_table(f"{storage.uri}/{files.embeddings.path}")
    assert (table.num_rows, table.schema.names[-3:]) == (0, NAMES[-3:])
    assert (files.tokens, files.output_tokens, files.token_histogram) == (0, 0, {})


def test_an_empty_answer_is_an_answer_and_what_is_no_text_is_mended(storage: Storage) -> None:
    outcomes = make_answers("ee")
    outcomes.responses = ["", "half \ud83d"]
    writer = answering(storage)
    writer.write(outcomes)
    path = writer.close().embeddings.path
    assert pq.read_table(f"{storage.uri}/{path}").column("response").to_pylist() == ["", "half ?"]


def drop_responses(outcomes):
    outcomes.responses = None


def lose_a_response(outcomes):
    outcomes.responses.pop()


def answer_null(outcomes):
    outcomes.responses[0] = None


def lose_a_count(outcomes):
    outcomes.output_tokens = outcomes.output_tokens[1:]


def lose_the_counts(outcomes):
    outcomes.output_tokens = None


@pytest.mark.parametrize(
    "spoiled", [drop_responses, lose_a_response, answer_null, lose_a_count, lose_the_counts]
)
def test_incomplete_answers_are_refused(storage: Storage, spoiled) -> None:
    outcomes = make_answers("eef")
    spoiled(outcomes)
    writer = answering(storage)
    with pytest.raises(ValueError, match=rf"{SHARD}: .*response"):
        writer.write(outcomes)
    writer.abort()
    assert list(storage.list()) == []


def test_outcomes_of_the_other_task_are_refused(storage: Storage) -> None:
    writer = ShardWriter(storage, SHARD, 1, {}, "float32")
    with pytest.raises(ValueError, match="responses, where the task is embed"):
        writer.write(make_answers("ee"))
    writer.abort()
    writer = answering(storage)
    with pytest.raises(ValueError, match="2 answered rows with 0 responses"):
        writer.write(make_outcomes("ee"))
    writer.abort()


def test_names_are_reserved_only_where_the_task_needs_them(storage: Storage) -> None:
    columns = {"response": "string", "input_tokens": "int64", "output_tokens": "json"}
    marker = write_shard(storage, SHARD, "ee", columns=columns, values={"response": ["kept", None]})
    table = pq.read_table(f"{storage.uri}/{marker.embeddings.path}")
    assert table.column("response").to_pylist() == ["kept", None]
    assert plan_columns(table.schema) == columns
    for name in (*columns, "embedding", "record_id"):
        with pytest.raises(ConfigurationError, match=f"'{name}' cannot be passed through"):
            ShardWriter(storage, SHARD, 2, {name: "string"}, "float32", task="generate")


def test_a_marker_of_answers_comes_back_and_one_of_an_unknown_task_does_not(storage: Storage) -> None:
    marker = write_shard(storage, SHARD, "erf", task="generate", cost_usd=0.25)
    found = read_marker(storage, SHARD)
    assert found is not None
    assert found[0] == marker
    path = f"shards/{SHARD}/shard.json"
    storage.write(path, orjson.dumps(orjson.loads(storage.read(path)) | {"task": "sing"}))
    with pytest.raises(AccountingError, match=r"not a commit marker \(task: "):
        read_marker(storage, SHARD)


def test_embeddings_are_stored_as_before_there_was_another_task(storage: Storage) -> None:
    marker = write_shard(storage, SHARD, "eref", columns=COLUMNS, values=VALUES)
    user = [
        pa.field(name, kind, metadata={b"batch_assets:type": told})
        for name, kind, told in [("title", pa.string(), b"string"), ("year", pa.int64(), b"int64")]
    ]
    element = pa.field("element", pa.float32(), nullable=False)
    expected = pa.schema(
        [
            pa.field("record_id", pa.string(), nullable=False),
            pa.field("source_file", pa.string(), nullable=False),
            pa.field("source_row", pa.int64(), nullable=False),
            *user,
            pa.field("embedding", pa.list_(element, 8), nullable=False),
            pa.field("token_count", pa.int32(), nullable=False),
        ]
    )
    file = pq.ParquetFile(f"{storage.uri}/{marker.embeddings.path}")
    assert file.schema_arrow.remove_metadata().equals(expected, check_metadata=True)
    content = orjson.loads(storage.read(f"shards/{SHARD}/shard.json"))
    assert list(content) == [
        "attempt", "columns", "cost_usd", "counts", "created", "device", "dimensions", "dtype", "executor",
        "fence", "files", "fingerprint", "format", "job", "model", "normalized", "norms", "pipeline", "shard",
        "timings", "token_histogram", "tokens", "vector_dtype",
    ]  # fmt: skip
    found = read_marker(storage, SHARD)
    assert found is not None
    assert (found[0].task, found[0].output_tokens) == ("embed", 0)
