"""Pipelines at a rehearsed AWS, driven by `control/` alone, with a ledger whose clock leaps over pauses.

Uploading, turns of the control loop and collecting as runs and sensors do it, without Dagster.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from batch_assets.control.collection import collect_shards
from batch_assets.control.loop import Turn, take_turn
from batch_assets.control.merging import merge_shards, publish_merge
from batch_assets.control.pipeline import Pipeline, open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.control.preparation import prepare_shards, queue_shards
from batch_assets.control.shard_result import Result, ShardResult
from batch_assets.executors.registry import create_host
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets.rehearsal.vectors import embed
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline
from batch_assets_tests.command import published, some_records, write_records
from batch_assets_tests.pauses import skipped_seconds
from batch_assets_tests.rehearsed import DIMENSIONS, ROLE, TITAN, Rehearsal
from batch_assets_tests.waiting import wait_until

PER_SHARD = 12
LAST = (State.COLLECTED, State.EXHAUSTED)


@dataclass
class Clock:
    """The ledger's clock: real time, what a test lets pass, and the pauses that it skips."""

    ahead: float = 0.0
    leaps: bool = True

    def leap(self, seconds: float) -> None:
        self.ahead += seconds if self.leaps else 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead + (skipped_seconds() if self.leaps else 0.0)


@dataclass
class Site:
    """One pipeline's folder, ledger and account: what a process that comes later finds again."""

    rehearsal: Rehearsal
    folder: Path
    settings: PipelineSettings
    clock: Clock = field(default_factory=Clock)
    ledger_name: str = "ledger"

    def __post_init__(self) -> None:
        self.account = create_host(self.settings.executor.type)
        self.ledger = Ledger.open(f"sqlite:///{self.folder}/{self.ledger_name}.db", clock=self.clock)

    def open(self) -> Pipeline:
        return open_pipeline(self.settings, self.ledger, self.account.executor(self.settings))

    def with_executor(self, **fields: Any) -> Self:
        """The same, with other settings of the executor; the ledger is the same one."""
        executor = self.settings.executor.model_copy(update=fields)
        return replace(self, settings=self.settings.model_copy(update={"executor": executor}))

    def opened_again(self) -> Self:
        """The same as a process that comes later finds it; no file is written, since workers may be reading."""
        return replace(self, clock=Clock())

    def without_ledger(self) -> Self:
        """The same after the ledger was lost."""
        return replace(self, ledger_name=f"{self.ledger_name}-new")

    # --- the steps of a run ---

    def plan(self) -> Pipeline:
        pipeline = self.open()
        plan_source(pipeline)
        return pipeline

    def upload(self, pipeline: Pipeline | None = None) -> Pipeline:
        """Plan, prepare and queue every shard that has not been."""
        pipeline = pipeline or self.plan()
        fresh = [row.key for row in self.rows() if row.state in (State.PLANNED, State.PREPARED)]
        list(prepare_shards(pipeline, fresh))
        queue_shards(pipeline, fresh)
        return pipeline

    def collect(self, pipeline: Pipeline) -> list[ShardResult]:
        """Collect all that has ended."""
        keys = [row.key for row in self.ledger.finished(self.settings.name, 1000)]
        return list(collect_shards(pipeline, keys))

    def run(self, until: Callable[[], bool] | None = None) -> Pipeline:
        """Bring every shard to its end, as a run does; nothing is merged."""
        pipeline, ended = self.plan(), until or self.done
        self.ledger.clear_stop(pipeline.name)
        self.ledger.start_again(pipeline.name)
        self.ledger.clear_blocked(pipeline.name)

        def brought_on() -> bool:
            if not ended():
                self.step(pipeline)
            return ended()

        wait_until(brought_on, lambda: (self.states(), self.ledger.money(pipeline.name)))
        return pipeline

    def step(self, pipeline: Pipeline) -> tuple[Turn, list[ShardResult]]:
        """One pass of a run's loop; time passes by leaps where everything waits."""
        if any(row.state in (State.PLANNED, State.PREPARED) for row in self.rows()):
            self.upload(pipeline)
        turn = take_turn([pipeline])
        results = self.collect(pipeline)
        moved = any(result.result is not Result.NOT_READY for result in results)
        if not moved and not turn.started and not turn.ended:
            time.sleep(0.003)
            # The service's clock runs fast by itself; the ledger's pauses are leapt over.
            self.clock.leap(1.0 if any(job.active for job in self.rehearsal.jobs) else 20.0)
        return turn, results

    def publish(self, pipeline: Pipeline) -> pl.DataFrame:
        publish_merge(pipeline, merge_shards(pipeline))
        return published(self.folder / "out")

    def first_round(self) -> Pipeline:
        """Upload, start what fits the slots, and wait until all of it has ended; nothing is collected."""
        pipeline = self.upload()
        wait_until(
            lambda: self.rehearsal.jobs and not any(job.active for job in self.rehearsal.jobs),
            lambda: self.rehearsal.jobs,
        )
        self.clock.ahead += 10
        take_turn([pipeline])
        return pipeline

    def rows(self) -> list[Any]:
        return self.ledger.shards(self.settings.name)

    def states(self) -> list[str]:
        return [row.state.value for row in self.rows()]

    def done(self) -> bool:
        return all(row.state in LAST for row in self.rows())

    def spent(self) -> float:
        return self.ledger.money(self.settings.name).spent_usd

    def billed(self) -> float:
        """What the service's own books say."""
        books = self.rehearsal.server.books
        return sum(account.usd for account in (*books.jobs.values(), books.on_demand))

    def failures(self) -> pl.DataFrame:
        """The rejected and failed records of what is published."""
        version = (self.folder / "out" / "merged" / "CURRENT").read_text().strip()
        return pl.read_parquet(self.folder / "out" / "merged" / version / "failures.parquet")


def make_site(rehearsal: Rehearsal, folder: Path, shards: int = 3, **fields: Any) -> Site:
    """A pipeline of so many shards with a local root and staging on S3; `executor` are further fields of it."""
    write_records(folder / "in.jsonl", some_records(shards * PER_SHARD))
    executor = {
        "type": "bedrock",
        "role_arn": ROLE,
        "model_id": TITAN,
        "staging": f"s3://{rehearsal.bucket}/staging/",
        "poll_seconds": 0.01,
        "on_demand_rpm": 600_000,
        **fields.pop("executor", {}),
    }
    values = {
        "source": {"uri": f"{folder}/in.jsonl", "id_column": "id"},
        "model": {"dimensions": DIMENSIONS},
        "shards": {"records": PER_SHARD},
        "output": {"root": f"{folder}/out"},
        **fields,
        "executor": {name: value for name, value in executor.items() if value is not None},
    }
    return Site(rehearsal, folder, parse_pipeline(values, "texts", "a test"))


def assert_every_record_once(rows: pl.DataFrame, records: list[dict[str, Any]]) -> None:
    """These records are published once each, in order, with their own vectors."""
    assert rows["record_id"].to_list() == [record["id"] for record in records]
    expected = embed([str(record["text"]) for record in records], DIMENSIONS)
    assert np.allclose(np.array(rows["embedding"].to_list()), expected, atol=1e-5)


def assert_whole(site: Site, shards: int, records: list[dict[str, Any]] | None = None) -> pl.DataFrame:
    """All is collected, published in order, paid for once, and the books agree with the ledger."""
    assert set(site.states()) == {State.COLLECTED}
    rows = site.publish(site.open())
    valid = [record for record in records or some_records(shards * PER_SHARD) if record["text"]]
    assert_every_record_once(rows, valid)
    assert site.rehearsal.paid_twice() == 0
    assert not any(job.active for job in site.rehearsal.jobs)
    money = site.ledger.money(site.settings.name)
    assert money.held_usd == 0
    return rows
