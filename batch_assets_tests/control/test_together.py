"""Several shards at once in threads: every record once, and when one must stop, all do."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from batch_assets.control.collection import collect_shards
from batch_assets.control.merging import merge_shards, publish_merge
from batch_assets.control.pipeline import Pipeline, open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.control.preparation import prepare_shards, queue_shards
from batch_assets.control.shard_result import Result
from batch_assets.errors import StorageError
from batch_assets.executors.base import WorkerDied
from batch_assets.ledger.states import State
from batch_assets.sharding.plan import Shard
from batch_assets_tests.control.builders import (
    PER_SHARD,
    assert_published,
    make_settings,
    open_ledger,
    write_input,
)
from batch_assets_tests.fakes import FakeExecutor, FakeHost
from batch_assets_tests.waiting import PATIENCE_SECONDS

THREADS = 8


@dataclass
class Several(FakeExecutor):
    """Eight at a time; `cancelled` is set when a job of it is."""

    cancelled: threading.Event = field(default_factory=threading.Event)

    def at_once(self) -> int:
        return THREADS

    def cancel(self, job: str) -> None:
        self.cancelled.set()


def prepare(folder: Path, shards: int) -> tuple[Pipeline, Several, list[str]]:
    write_input(folder, shards)
    settings = make_settings(folder)
    executor = Several(FakeHost(), settings)
    pipeline = open_pipeline(settings, open_ledger(folder), executor)
    keys = plan_source(pipeline).all_keys
    list(prepare_shards(pipeline, keys))
    queue_shards(pipeline, keys)
    return pipeline, executor, keys


def test_every_shard_is_computed_once_by_as_many_threads(tmp_path: Path) -> None:
    shards = 40
    pipeline, executor, keys = prepare(tmp_path, shards)
    # None goes on before all the threads have a shard.
    together = threading.Barrier(THREADS, timeout=PATIENCE_SECONDS)
    first = set(keys[:THREADS])

    def waits(shard: Shard) -> None:
        if shard.key in first:
            together.wait()

    executor.host.before = waits
    results = list(collect_shards(pipeline, keys))
    assert sorted(result.key for result in results) == keys
    assert {result.result for result in results} == {Result.COLLECTED}
    assert sorted(executor.host.computed) == keys
    publish_merge(pipeline, merge_shards(pipeline))
    assert_published(tmp_path / "out", shards * PER_SHARD)


def test_an_error_that_no_shard_would_escape_stops_all(tmp_path: Path) -> None:
    pipeline, executor, keys = prepare(tmp_path, 20)

    def fails(shard: Shard) -> None:
        if shard.key == keys[3]:
            raise StorageError("s3://bucket: no network; try again")
        assert executor.cancelled.wait(PATIENCE_SECONDS), "nobody was told to stop"

    executor.host.before = fails
    with pytest.raises(StorageError, match="no network"):
        list(collect_shards(pipeline, keys))
    rows = pipeline.ledger.shards(pipeline.name)
    assert {(row.state, row.holder) for row in rows} <= {(State.READY, None), (State.COLLECTED, None)}
    assert {row.attempt for row in rows if row.state is State.READY} == {0}
    assert len(executor.host.computed) < len(keys)


def test_machines_that_go_down_are_forgiven_a_few_times(tmp_path: Path) -> None:
    pipeline, executor, keys = prepare(tmp_path, 2)
    lost: list[str] = []

    def loses(shard: Shard) -> None:
        if shard.key == keys[0] or len(lost) == 0:
            lost.append(shard.key)
            raise WorkerDied("its node was lost", machine_lost=True)

    executor.host.before = loses
    results = {result.key: result for result in collect_shards(pipeline, keys)}
    assert results[keys[1]].result is Result.COLLECTED
    assert results[keys[0]].result is Result.EXHAUSTED
    assert "its node was lost" in results[keys[0]].message
    rows = {row.key: row for row in pipeline.ledger.shards(pipeline.name)}
    # Five were forgiven, then it was the shard.
    assert lost.count(keys[0]) == 5 + pipeline.settings.executor.max_attempts
    assert (rows[keys[0]].attempt, rows[keys[1]].attempt) == (3, 1)
