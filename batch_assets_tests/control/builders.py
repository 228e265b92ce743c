"""A pipeline with a fake executor, driven by `control/` alone: no Dagster, no model."""

import gzip
from pathlib import Path
from typing import Any

import polars as pl

from batch_assets.control.collection import collect_shards
from batch_assets.control.merging import merge_shards, publish_merge
from batch_assets.control.pipeline import Pipeline, open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.control.preparation import prepare_shards, queue_shards
from batch_assets.control.shard_result import Result, ShardResult
from batch_assets.ledger.ledger import Ledger
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline
from batch_assets_tests.command import published, some_records, write_records
from batch_assets_tests.fakes import FakeHost, fake_vector

PER_SHARD = 5


def make_settings(folder: Path, **fields: Any) -> PipelineSettings:
    """Reads `folder`/in.jsonl and writes `folder`/out, five records a shard."""
    values = {
        "source": {"uri": f"{folder}/in.jsonl", "id_column": "id"},
        "shards": {"records": PER_SHARD},
        "output": {"root": f"{folder}/out"},
        **fields,
    }
    return parse_pipeline(values, "texts", "a test")


def open_ledger(folder: Path, name: str = "ledger") -> Ledger:
    """A ledger of its own."""
    return Ledger.open(f"sqlite:///{folder}/{name}.db")


def write_gzip(file: Path, *ids: str) -> bytes:
    """A file of JSON lines with these ids, and its content."""
    whole = gzip.compress(b"".join(b'{"id": "%s", "text": "hello"}\n' % name.encode() for name in ids))
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(whole)
    return whole


def write_input(folder: Path, shards: int) -> None:
    write_records(folder / "in.jsonl", some_records(shards * PER_SHARD))


def embed_all(settings: PipelineSettings, ledger: Ledger, host: FakeHost) -> list[ShardResult]:
    """Plan, prepare and collect whatever there is, as a run does; how each shard ended."""
    pipeline = open_pipeline(settings, ledger, host.executor(settings))
    keys = plan_source(pipeline).all_keys
    list(prepare_shards(pipeline, keys))
    queue_shards(pipeline, keys)
    return list(collect_shards(pipeline, keys))


def run(settings: PipelineSettings, ledger: Ledger, host: FakeHost) -> Pipeline:
    """`embed_all`, then merge and publish; every shard must have come out."""
    results = embed_all(settings, ledger, host)
    assert {result.result for result in results} <= {Result.COLLECTED, Result.VERIFIED}, results
    pipeline = open_pipeline(settings, ledger, host.executor(settings))
    publish_merge(pipeline, merge_shards(pipeline))
    return pipeline


def assert_published(root: Path, records: int) -> pl.DataFrame:
    """Every one of `some_records(records)` is published once, in order, with its own vector."""
    rows = published(root)
    expected = some_records(records)
    assert rows["record_id"].to_list() == [record["id"] for record in expected]
    vectors = [fake_vector(str(record["text"])).tolist() for record in expected]
    assert rows["embedding"].to_list() == vectors
    return rows
