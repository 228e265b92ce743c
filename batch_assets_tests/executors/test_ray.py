"""The executor `ray` on a real Ray of two CPU workers, started here."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batch_assets.control.collection import collect_shards
from batch_assets.control.merging import merge_shards, publish_merge
from batch_assets.control.pipeline import Pipeline, open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.control.preflight import check_model
from batch_assets.control.preparation import prepare_shards, queue_shards
from batch_assets.control.shard_result import Result
from batch_assets.errors import ConfigurationError, ModelError
from batch_assets.executors.base import Cancelled, ShardRunner
from batch_assets.executors.ray import worker
from batch_assets.executors.ray.cluster import RayCluster
from batch_assets.ledger.states import State
from batch_assets.settings.in_place import RayExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import Shard
from batch_assets.storage import LocalStorage, open_storage
from batch_assets.worker.attempt import Attempt, ShardRun
from batch_assets_tests.command import published, write_records
from batch_assets_tests.control.builders import make_settings, open_ledger
from batch_assets_tests.executors.contract import RunnerContract

WORKERS = 2
RAY = {"type": "ray", "address": "local", "workers": WORKERS, "gpus_per_worker": 0}
PER_SHARD = 6_200  # four batches: when the first is written, the last is not made


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    cluster = RayCluster()
    yield cluster
    cluster.close()


class TestRayExecutor(RunnerContract):
    @pytest.fixture(autouse=True)
    def _on_the_cluster(self, cluster: RayCluster) -> None:
        self.cluster = cluster

    def make(self, settings: PipelineSettings) -> ShardRunner:
        return self.cluster.executor(settings)

    def configured(self, settings: PipelineSettings) -> PipelineSettings:
        return settings.model_copy(update={"executor": RayExecutorSettings(**RAY)})

    def test_what_was_cancelled_is_not_begun(self, settings: PipelineSettings, shards: list[Shard]) -> None:
        executor = self.make(settings)
        attempt = Attempt(settings, shards[0], 1, 1, executor.fingerprint(), executor.kind, "a job")
        for _ in range(2):
            executor.cancel("a job")
        with pytest.raises(Cancelled):
            next(executor.run(attempt, open_storage(settings.output.root)))

    def test_a_worker_to_which_the_root_is_another_place_computes_nothing(
        self, settings: PipelineSettings, shards: list[Shard], tmp_path: Path
    ) -> None:
        executor, root = self.make(settings), LocalStorage(settings.output.root)
        root.uri = str(tmp_path / "elsewhere")  # a path may lead to another place on another machine
        attempt = Attempt(settings, shards[0], 1, 1, executor.fingerprint(), executor.kind, "a job")
        with pytest.raises(ConfigurationError, match="elsewhere is another place for a worker on"):
            next(executor.run(attempt, root))
        assert not (tmp_path / "elsewhere").exists()
        assert [info.path for info in root.list() if not info.path.startswith("plan/")] == []


def prepare(
    folder: Path, model: Path, cluster: RayCluster, shards: int, **fields: Any
) -> tuple[Pipeline, list[str]]:
    """A planned pipeline of so many shards that take a while, and their keys."""
    words = ["file", "read text", "sort the list", "open"]
    records = [{"id": f"r{number}", "text": words[number % 4]} for number in range(shards * PER_SHARD)]
    write_records(folder / "in.jsonl", records)
    settings = make_settings(
        folder,
        model={"id": str(model), "dtype": "float32"},
        shards={"records": PER_SHARD},
        executor={**RAY, **fields},
    )
    pipeline = open_pipeline(settings, open_ledger(folder), cluster.executor(settings))
    keys = plan_source(pipeline).all_keys
    list(prepare_shards(pipeline, keys))
    queue_shards(pipeline, keys)
    return pipeline, keys


def assert_published_once(pipeline: Pipeline, shards: int) -> None:
    publish_merge(pipeline, merge_shards(pipeline))
    rows = published(Path(pipeline.storage.uri))
    assert rows["record_id"].to_list() == [f"r{number}" for number in range(shards * PER_SHARD)]
    # The same four texts over and over: whoever embedded them, and whenever.
    vectors = np.stack(rows["embedding"].to_numpy())
    assert np.allclose(vectors, vectors[np.arange(len(vectors)) % 4], atol=1e-5)


def threads_of_shards() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("shards")]


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often, by shard, a worker is killed (SIGKILL) when the first batch of the shard has come from it."""
    left: dict[str, int] = {}
    run = worker.Worker.run

    def dies(one: worker.Worker, attempt: Attempt, root: str, is_cancelled: Any) -> ShardRun:
        key, going = attempt.shard.key, run(one, attempt, root, is_cancelled)
        yield next(going)
        if left.get(key, 0):
            left[key] -= 1
            assert one.loaded is not None
            os.kill(one.loaded.pid, signal.SIGKILL)
        return (yield from going)

    monkeypatch.setattr(worker.Worker, "run", dies)
    return left


def test_a_dead_worker_costs_the_shard_it_held_one_attempt(
    tmp_path: Path, tiny_model: Path, cluster: RayCluster, deaths: dict[str, int]
) -> None:
    shards = 4
    pipeline, keys = prepare(tmp_path, tiny_model, cluster, shards, max_attempts=2)
    done: Counter[str] = Counter()
    cluster.progress = lambda records, tokens: done.update(records=records, tokens=tokens)
    deaths |= {keys[0]: 1, keys[2]: 2}
    results = {result.key: result for result in collect_shards(pipeline, keys)}
    assert {key: result.result for key, result in results.items()} == {
        keys[0]: Result.COLLECTED,
        keys[1]: Result.COLLECTED,
        keys[2]: Result.EXHAUSTED,
        keys[3]: Result.COLLECTED,
    }
    rows = {row.key: row for row in pipeline.ledger.shards(pipeline.name)}
    assert [rows[key].attempt for key in keys] == [2, 1, 2, 1]
    assert "its worker died (pid" in str(rows[keys[2]].error), rows[keys[2]].error
    assert done["records"] >= 3 * PER_SHARD and done["tokens"] >= 3 * done["records"]
    # What killed its workers is mended.
    pipeline.ledger.retry(pipeline.name, None)
    [result] = collect_shards(pipeline, [keys[2]])
    assert result.result is Result.COLLECTED and result.marker is not None
    assert result.marker.executor == "ray" and result.marker.device == "cpu"
    assert_published_once(pipeline, shards)
    assert threads_of_shards() == []


def test_a_lost_machine_costs_no_attempt(
    tmp_path: Path,
    tiny_model: Path,
    cluster: RayCluster,
    deaths: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline, keys = prepare(tmp_path, tiny_model, cluster, 1, max_attempts=1)
    deaths[keys[0]] = 1
    monkeypatch.setattr("batch_assets.executors.ray.deaths._is_alive", lambda node: False)
    [result] = collect_shards(pipeline, keys)
    assert result.result is Result.COLLECTED
    assert pipeline.ledger.shards(pipeline.name)[0].attempt == 1


def test_whoever_stops_asking_leaves_nothing_at_work(
    tmp_path: Path, tiny_model: Path, cluster: RayCluster
) -> None:
    pipeline, keys = prepare(tmp_path, tiny_model, cluster, 5)
    results = collect_shards(pipeline, keys)
    first = next(results)
    results.close()
    assert threads_of_shards() == []
    states = Counter(row.state for row in pipeline.ledger.shards(pipeline.name))
    assert states[State.COLLECTED] in (1, 2, 3) and states.keys() <= {State.COLLECTED, State.READY}
    ready = pipeline.ledger.shards(pipeline.name, states=[State.READY])
    assert {(row.holder, row.attempt) for row in ready} == {(None, 0)}
    assert first.result is Result.COLLECTED
    assert {result.result for result in collect_shards(pipeline, keys)} == {Result.COLLECTED, Result.VERIFIED}


def test_an_error_of_the_model_is_the_same_as_in_one_process(
    tmp_path: Path, tiny_model: Path, cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, keys = prepare(tmp_path, tiny_model, cluster, 2)
    # Another model, so other workers: and theirs is not the driver's.
    changed = pipeline.settings.model_copy(
        update={"model": pipeline.settings.model.model_copy(update={"prompt": "query: "})}
    )
    pipeline = open_pipeline(changed, pipeline.ledger, cluster.executor(changed))
    monkeypatch.setattr("batch_assets.executors.ray.shared.fingerprint", lambda settings: "0" * 16)
    with pytest.raises(
        ModelError, match=r"is not the one that the run has: its fingerprint is [0-9a-f]{16}, not 0000"
    ):
        list(collect_shards(pipeline, keys))
    assert {(row.state, row.attempt) for row in pipeline.ledger.shards(pipeline.name)} == {(State.READY, 0)}
    assert threads_of_shards() == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"workers": 400},
            r"executor.workers: 400 workers of 1 CPU each have no room on .* at most \d+; write",
        ),
        ({"gpus_per_worker": 1}, "a worker takes 1 CPU and 1 GPU, and no node of .* has that"),
        ({"gpus_per_worker": 1.5}, "executor.gpus_per_worker: 1.5 cannot be given out"),
        (
            {"address": "127.0.0.1:1"},
            "127.0.0.1:1 cannot be joined, since this process works with|no Ray answers",
        ),
    ],
)
def test_what_the_cluster_has_no_room_for_is_refused_at_once(
    tmp_path: Path, tiny_model: Path, cluster: RayCluster, change: dict[str, Any], told: str
) -> None:
    settings = make_settings(tmp_path, model={"id": str(tiny_model)}, executor={**RAY, **change})
    with pytest.raises(ConfigurationError, match=told):
        check_model(settings, cluster.executor(settings), open_ledger(tmp_path))
