"""Merged versions of answers: made, checked, verified; and what a version cost."""

from pathlib import Path

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.errors import AccountingError, ConfigurationError
from batch_assets.merge.base import Manifest, read_manifest
from batch_assets.merge.checks import check_accounting, check_vectors
from batch_assets.merge.parquet import merge
from batch_assets.merge.publishing import publish
from batch_assets.merge.search import open_published, search
from batch_assets.merge.verification import verify
from batch_assets.storage import Storage, open_storage
from batch_assets_tests.embeddings.builders import write_shard
from batch_assets_tests.merge.test_verification import plan

FINGERPRINT = "f" * 16
KINDS = ["eeref", "rr", "eeeeee"]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "root"))


def publish_answers(storage: Storage) -> Manifest:
    """Three planned shards of answers, merged and published."""
    shards = plan(storage, 1, [len(kinds) for kinds in KINDS])
    for number, kinds in enumerate(KINDS):
        write_shard(storage, shards[number].key, kinds, base=100 * number, task="generate", cost_usd=0.5)
    result = merge(storage, [(shard.key, shard.records) for shard in shards], FINGERPRINT)
    assert publish(storage, result.manifest.version, None)
    return result.manifest


def part_path(storage: Storage, manifest: Manifest, number: int) -> Path:
    return Path(storage.uri) / manifest.path(manifest.parts[number])


def test_answers_are_merged_checked_and_recounted(storage: Storage) -> None:
    duckdb = pytest.importorskip("duckdb")
    manifest = publish_answers(storage)
    assert (manifest.task, manifest.dimensions, manifest.vector_dtype) == ("generate", 0, "")
    assert read_manifest(storage, manifest.version) == manifest
    assert check_accounting(storage, manifest).passed
    vectors = check_vectors(storage, manifest)
    assert vectors.passed
    assert vectors.message == (
        "there are no vectors: the task is generate. Of 9 responses 9 were read, and none is null"
    )
    assert vectors.metadata == {"responses": 9, "responses_read": 9}

    frame = pl.concat([pl.read_parquet(part_path(storage, manifest, number)) for number in range(3)])
    assert frame["source_row"].to_list() == [0, 1, 3, 200, 201, 202, 203, 204, 205]
    assert frame["response"].to_list()[:3] == ["answer to id-0", "answer to id-1", "answer to id-3"]
    assert (frame["input_tokens"].sum(), frame["output_tokens"].sum()) == (
        manifest.tokens,
        manifest.output_tokens,
    )
    counted = duckdb.sql(
        f"select count(response), sum(output_tokens) from '{storage.uri}/merged/{manifest.version}/data/*.parquet'"
    )
    assert counted.fetchall() == [(9, manifest.output_tokens)]

    told = orjson.loads(storage.read(f"merged/{manifest.version}/metadata.json"))
    assert told.items() >= {
        "num_samples": 9, "task": "generate", "input_tokens": manifest.tokens,
        "output_tokens": manifest.output_tokens, "cost_usd": 1.5,
    }.items()  # fmt: skip
    assert "dimensions" not in told

    report = verify(storage)
    assert (report.problems, report.notes) == ([], [])
    assert report.accounting.line() == "accounting: planned=13 embedded=9 rejected=3 failed=1"


def null_a_response(table: pa.Table) -> pa.Table:
    values = table.column("response").to_pylist()
    index = table.schema.names.index("response")
    return table.set_column(index, "response", pa.array([None, *values[1:]], type=pa.string()))


def drop_responses(table: pa.Table) -> pa.Table:
    return table.drop_columns(["response"])


@pytest.mark.parametrize(
    ("change", "said"),
    [(null_a_response, "1 responses are null"), (drop_responses, "has no column 'response'")],
)
def test_a_missing_response_is_found(storage: Storage, change, said: str) -> None:
    manifest = publish_answers(storage)
    path = part_path(storage, manifest, 2)
    pq.write_table(change(pq.read_table(path)), path)
    outcome = check_vectors(storage, manifest)
    assert not outcome.passed
    assert f"part-00002.parquet: {said}" in outcome.message
    assert any("part-00002.parquet" in problem for problem in verify(storage).problems)


def test_of_many_answers_a_sample_is_read(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch_assets.merge.checks.ALL_READ", 100)
    shards = [(f"g0001-{number:05d}", 30) for number in range(8)]
    for number, (key, records) in enumerate(shards):
        write_shard(storage, key, "e" * records, base=100 * number, task="generate")
    outcome = check_vectors(storage, merge(storage, shards, FINGERPRINT).manifest)
    assert (outcome.passed, outcome.metadata) == (True, {"responses": 240, "responses_read": 30})


def test_answers_of_two_generations_share_one_set_of_columns(storage: Storage) -> None:
    write_shard(storage, "g0001-00000", "ee", task="generate")
    write_shard(
        storage, "g0002-00000", "ee", base=10, columns={"a": "int64"}, values={"a": [1, 2]}, task="generate"
    )
    manifest = merge(storage, [("g0001-00000", 2), ("g0002-00000", 2)], FINGERPRINT).manifest
    frame = pl.concat([pl.read_parquet(part_path(storage, manifest, number)) for number in range(2)])
    assert frame.columns[3:] == ["a", "response", "input_tokens", "output_tokens"]
    assert frame["a"].to_list() == [None, None, 1, 2]
    assert frame["response"].to_list() == ["answer to id-0", "answer to id-1"] * 2
    assert pq.read_schema(part_path(storage, manifest, 0)).field("response").nullable is False


def test_answers_and_vectors_are_not_merged(storage: Storage) -> None:
    write_shard(storage, "g0001-00000", "ee")
    write_shard(storage, "g0001-00001", "ee", base=10, task="generate")
    with pytest.raises(AccountingError, match="embed in shard g0001-00000, generate in shard g0001-00001"):
        merge(storage, [("g0001-00000", 2), ("g0001-00001", 2)], FINGERPRINT)


def test_there_is_nothing_to_search_in_answers(storage: Storage) -> None:
    publish_answers(storage)
    for refused in (lambda: open_published(storage), lambda: search(storage, [1.0, 0.0], 3)):
        with pytest.raises(ConfigurationError, match="generates answers: there are no vectors to search"):
            refused()


@pytest.mark.parametrize(
    ("costs", "total"), [((None, None), None), ((0.25, None), 0.25), ((0.25, 0.5), 0.75)]
)
def test_what_the_shards_cost_is_added_up(
    storage: Storage, costs: tuple[float | None, float | None], total: float | None
) -> None:
    shards = [("g0001-00000", 2), ("g0001-00001", 2)]
    for number, (key, _) in enumerate(shards):
        write_shard(storage, key, "ee", base=10 * number, cost_usd=costs[number])
    version = merge(storage, shards, FINGERPRINT).manifest.version
    for name in ("manifest.json", "metadata.json"):
        assert orjson.loads(storage.read(f"merged/{version}/{name}"))["cost_usd"] == total


def test_a_manifest_from_before_there_were_answers_is_read(storage: Storage) -> None:
    write_shard(storage, "g0001-00000", "ee")
    manifest = merge(storage, [("g0001-00000", 2)], FINGERPRINT).manifest
    path = f"merged/{manifest.version}/manifest.json"
    content = orjson.loads(storage.read(path))
    for name in ("task", "output_tokens", "cost_usd"):
        del content[name]
    storage.write(path, orjson.dumps(content))
    assert read_manifest(storage, manifest.version) == manifest
