"""Drives one pipeline from a command: the same assets as in the UI, run in this process.

What is printed, and what a run's end means as an exit code, belongs to `cli/`.
"""

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import dagster as dg

from batch_assets.control.leases import giving_back
from batch_assets.control.pipeline import note_fingerprint
from batch_assets.errors import BudgetReached, StorageError
from batch_assets.executors.registry import ExecutorHost
from batch_assets.executors.service_jobs import Unanswered
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import ShardRow
from batch_assets.ledger.states import State
from batch_assets.notifications.registry import create_notifiers
from batch_assets.orchestration import interruption
from batch_assets.orchestration.deferred_driver import embed_at_service
from batch_assets.orchestration.following import Following
from batch_assets.orchestration.markdown import read_list
from batch_assets.orchestration.mending import know_partitions, missing_materializations, report_dead_runs
from batch_assets.orchestration.metadata import NOTES
from batch_assets.orchestration.partitions import range_tags, shard_ranges
from batch_assets.orchestration.pipeline import build_pipeline_definitions
from batch_assets.orchestration.run_failure import RunFailed, cause_of, raise_interruption
from batch_assets.orchestration.silence import silence_of_run
from batch_assets.patience import Patience, pause
from batch_assets.retry_policy import HELD_SECONDS, PASSES_WITHOUT_PROGRESS
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.settings.project import LEDGER, NOTIFICATIONS, executor_key

Made = TypeVar("Made")
ASSETS = ("input_shards", "submitted_jobs", "embedding_outputs")
ENDED = (State.COLLECTED, State.EXHAUSTED)
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

# The process is the command's own, and Dagster's warnings are not for whoever runs it.
for category in (dg.BetaWarning, dg.PreviewWarning):
    warnings.filterwarnings("ignore", category=category)


@dataclass
class Driver:
    """Runs a pipeline's assets on `instance`, in process, until there is nothing left to do."""

    settings: PipelineSettings
    instance: dg.DagsterInstance
    ledger: Ledger
    host: ExecutorHost
    tags: Mapping[str, str] = field(default_factory=dict)
    say: Callable[[str], None] = lambda _: None

    def __post_init__(self) -> None:
        own = dg.Definitions(
            resources={
                LEDGER: self.ledger,
                NOTIFICATIONS: create_notifiers(),
                executor_key(self.settings.executor.type): self.host,
            },
            executor=dg.in_process_executor,
        )
        merged = dg.Definitions.merge(build_pipeline_definitions(self.settings), own)
        self._job = merged.resolve_implicit_global_asset_job_def()

    def plan(self) -> None:
        """Materialize `shard_plan`; an order to stop that was given before is lifted."""
        self.ledger.clear_stop(self.settings.name)
        self.ledger.start_again(self.settings.name)
        if self.ledger.pipeline(self.settings.name) is not None:
            self.ledger.clear_blocked(self.settings.name)
        report_dead_runs(self.instance, self.ledger)
        result = self.insist(lambda: self._materialize(["shard_plan"], {}))
        for event in result.get_asset_materialization_events():
            for note in read_list(str(event.materialization.metadata[NOTES].value)):
                self.say(f"note: {note}")

    def embed(self) -> None:
        """Materialize the partitioned assets of every shard that is not done, others' included.

        Shards that another run holds are waited for. A shard that fails is tried again for as
        long as the ledger gives it attempts. Raises RunFailed where that gets nowhere, StorageError
        where a store or a service stays away.
        """
        executor = self.host.executor(self.settings)
        note_fingerprint(self.ledger, self.settings.name, executor.fingerprint())
        if executor.in_place:
            self._embed_in_place()
        else:
            embed_at_service(self)
        # What a crash committed and did not come to report, so that no daemon is needed for a true picture.
        for event in missing_materializations(self.instance, self.ledger):
            self.instance.report_runless_asset_event(event)

    def _embed_in_place(self) -> None:
        passes, told = 0, ""
        following, patience = Following(self), Patience(self.say)
        while left := self.unfinished():
            if self.ledger.stop_requested(self.settings.name):
                raise RunFailed(f"pipeline {self.settings.name} was stopped; the same command goes on")
            if any(row.state is State.STOPPED for row in left):
                # Stopped by an order that was lifted while it was carried out: nobody else starts them.
                self.ledger.start_again(self.settings.name)
            held = {row.key: row for row in left if self.held(row)}
            free = following.free([row for row in left if row.key not in held])
            if not free and not held:
                if following.is_over():
                    return
                following.pause()
                continue
            if not free:
                holders = sorted({str(row.holder) for row in held.values()})
                news = f"waiting for {len(held)} shards held by {', '.join(holders)}"
                if news != told:
                    self.say(news)
                told = news
                pause(HELD_SECONDS)
                continue
            failed = self.materialize_shards(ASSETS, free)
            money = self.ledger.money(self.settings.name)
            if money.blocked_kind == "budget" and money.blocked:
                raise BudgetReached(f"pipeline {self.settings.name}: {money.blocked}")
            # Judged by what is left now: what was left before the pass says nothing about it.
            still = self.unfinished()
            is_done = bool({row.key for row in left} - {row.key for row in still})
            if is_done:
                patience.renew()
            # Attempts come to an end by themselves, and the store's absence by `patience`.
            is_bounded = is_done or _tries(left) != _tries(still) or isinstance(failed, StorageError)
            passes = 0 if is_bounded else passes + 1
            if isinstance(failed, StorageError):
                patience.wait(failed)
            elif passes > PASSES_WITHOUT_PROGRESS:
                named = ", ".join(f"{row.key} ({row.state.value})" for row in still[:PASSES_WITHOUT_PROGRESS])
                raise failed or RunFailed(
                    f"{len(still)} shards make no progress: {named}; see the runs in the UI"
                )
            elif not is_done:
                pause(HELD_SECONDS)

    def insist(self, act: Callable[[], Made]) -> Made:
        """What `act` returns, tried again where a store or a service does not answer."""
        patience = Patience(self.say)
        while True:
            try:
                return act()
            except StorageError as error:
                patience.wait(error)

    def take_over_plan(self) -> None:
        """Materialize `shard_plan`, and nothing else: another pipeline, whose plan it is, has planned more."""
        self.insist(lambda: self._materialize(["shard_plan"], {}))

    def materialize_shards(
        self, names: Sequence[str], keys: Sequence[str], tags: Mapping[str, str] | None = None
    ) -> Exception | None:
        """Materialize these assets of these shards; returns the last failure. Raises what no shard would ever escape.

        A store that does not answer ends the pass: in a while it may. Unanswered is returned where a service
        answered nothing of it.
        """
        know_partitions(self.instance, self.ledger, self.settings.name, keys)
        known = self.instance.get_dynamic_partitions(f"{self.settings.name}_shards")
        failed, silent, answered = None, None, False
        for first, last in shard_ranges(known, keys):
            result = self._materialize(names, {**range_tags(first, last), **(tags or {})}, may_fail=True)
            if not result.success:
                failed = cause_of(result)
                if isinstance(failed, StorageError):
                    return failed
                if not isinstance(failed, RunFailed):
                    raise failed
            found = silence_of_run(result)
            silent, answered = found or silent, answered or found is None
        return Unanswered(silent) if failed is None and silent is not None and not answered else failed

    def merge(self) -> list[str]:
        """Materialize `merged_embeddings` with its checks; says what came of them.

        Returns what the checks have against what is published all the same: a sentence for each.
        """
        return self.insist(self._merge)

    def _merge(self) -> list[str]:
        key = dg.AssetKey([self.settings.name, "merged_embeddings"])
        result = self._materialize(["merged_embeddings"], {}, may_fail=True)
        evaluations = result.get_asset_check_evaluations()
        for evaluation in evaluations:
            verdict = "passed" if evaluation.passed else "FAILED"
            self.say(f"check {evaluation.check_name}: {verdict}: {evaluation.description}")
        published = bool(result.asset_materializations_for_node(key.to_python_identifier()))
        if not published or not result.success:
            raise cause_of(result)
        return [f"check {one.check_name}: {one.description}" for one in evaluations if not one.passed]

    def unfinished(self) -> list[ShardRow]:
        """Shards that are neither committed nor given up."""
        states = [state for state in State if state not in ENDED]
        return self.ledger.shards(self.settings.name, states=states)

    def held(self, row: ShardRow) -> bool:
        """Whether somebody alive is at the shard."""
        return row.state in (State.RUNNING, State.COLLECTING) and self.ledger.is_held(row.pipeline, row.key)

    def _materialize(
        self, names: Sequence[str], tags: Mapping[str, str], *, may_fail: bool = False
    ) -> dg.ExecuteInProcessResult:
        keys = [dg.AssetKey([self.settings.name, name]) for name in names]
        result = self._job.execute_in_process(
            instance=self.instance,
            asset_selection=keys,
            tags={**self.tags, **tags},
            raise_on_error=False,
            run_config=QUIET,
        )
        # What ended the run is told, and not that the ledger is away as well.
        failed = None if result.success else cause_of(result)
        ended_by = KeyboardInterrupt() if interruption.has_come() else failed
        with giving_back(ended_by) if ended_by is not None else contextlib.nullcontext():
            self.ledger.forget_run(result.run_id)
        if interruption.has_come():
            raise KeyboardInterrupt
        if failed is not None:
            raise_interruption(result)
            if not may_fail:
                raise failed
        return result


def _tries(rows: Sequence[ShardRow]) -> dict[str, tuple[int, int]]:
    """What each shard's failures have cost so far: of these there is an end."""
    return {row.key: (row.attempt, row.collections) for row in rows}
