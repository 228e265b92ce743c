"""The command's way with a deferred executor: upload, take turns of the control loop, collect what has ended.

The same loop as the `job_completion` sensor's, in this process, so that no daemon is needed.
"""

import time
from typing import TYPE_CHECKING

from batch_assets.control.alerts import alerts_of
from batch_assets.control.loop import Turn, take_turn
from batch_assets.control.pipeline import Pipeline, open_pipeline
from batch_assets.errors import BudgetReached, StorageError, SubmissionRefused
from batch_assets.ledger.rows import ShardRow
from batch_assets.ledger.states import AT_SERVICE, State
from batch_assets.notifications.delivery import notify
from batch_assets.notifications.registry import create_notifiers
from batch_assets.orchestration.metadata import COLLECT_TAG
from batch_assets.orchestration.partitions import SHARDS_PER_RUN

if TYPE_CHECKING:
    from batch_assets.orchestration.driver import Driver

LONGEST_WAIT_SECONDS = 5.0
COLLECTED_AT_ONCE = 1_000
FAILED_PASSES = 8
FINISHED = {COLLECT_TAG: "finished"}


def embed_at_service(driver: "Driver") -> None:
    """Bring every shard to its end. Raises BudgetReached, SubmissionRefused, RunFailed."""
    from batch_assets.orchestration.driver import RunFailed

    settings, ledger = driver.settings, driver.ledger
    pipeline = open_pipeline(settings, ledger, driver.host.executor(settings))
    notifiers = create_notifiers()
    known, failures, said = _Known(driver), 0, ""
    while left := driver.unfinished():
        if ledger.stop_requested(settings.name):
            raise RunFailed(f"pipeline {settings.name} was stopped; the same command goes on")
        if any(row.state is State.STOPPED and row.job is None for row in left):
            ledger.start_again(settings.name)
        fresh = [row.key for row in left if _is_fresh(row) and not driver.held(row)]
        failed = None
        if fresh:
            failed = driver.materialize_shards(("input_shards", "submitted_jobs"), fresh[:SHARDS_PER_RUN])
        turn = take_turn([pipeline])
        for alert in alerts_of(pipeline, turn):
            notify(ledger.notice_once, notifiers, alert)
        said = _say(driver, turn, said)
        ready = [row.key for row in ledger.finished(settings.name, COLLECTED_AT_ONCE)]
        if ready:
            failed = driver.materialize_shards(("embedding_outputs",), ready, FINISHED) or failed
        known.tell()
        failures = failures + 1 if failed is not None else 0
        if failed is not None and (failures >= FAILED_PASSES or not isinstance(failed, StorageError)):
            raise failed
        if failed is not None:
            driver.say(f"{failed}; trying again")
        if not fresh and not ready:
            _refuse_to_wait_for_ever(pipeline, turn)
        if (not fresh and not ready) or failed is not None:
            time.sleep(min(max(pipeline.poll_seconds / 10, 0.1), LONGEST_WAIT_SECONDS) * 2**failures)


def _is_fresh(row: ShardRow) -> bool:
    return row.state in (State.PLANNED, State.PREPARED)


def _refuse_to_wait_for_ever(pipeline: Pipeline, turn: Turn) -> None:
    """Raise where nothing that runs, and nothing that is postponed, could let the queue go on."""
    ledger, name = pipeline.ledger, pipeline.name
    if ledger.next_wakeup(name) is not None and ledger.money(name).blocked_kind != "budget":
        return
    if any(ledger.counts(name)[state] for state in (*AT_SERVICE, State.COLLECTING)):
        return
    if name in turn.refused:
        raise SubmissionRefused(turn.refused[name])
    money = ledger.money(name)
    if money.blocked_kind == "budget" and money.blocked:
        raise BudgetReached(f"pipeline {name}: {money.blocked}")


def _say(driver: "Driver", turn: Turn, said: str) -> str:
    """Tell what the service would not do, once as long as it stays the same."""
    news = "; ".join([*turn.problems, *dict.fromkeys(turn.refused.values())])
    if news and news != said:
        driver.say(news)
    return news


class _Known:
    """Tells the progress bar what became known since the last time, whoever collected it."""

    def __init__(self, driver: "Driver") -> None:
        self._driver = driver
        self._records, self._tokens = self._now()

    def _now(self) -> tuple[int, int]:
        totals = self._driver.ledger.totals(self._driver.settings.name)
        return totals.embedded + totals.rejected + totals.failed, totals.tokens

    def tell(self) -> None:
        records, tokens = self._now()
        if self._driver.host.progress is not None and records > self._records:
            self._driver.host.progress(records - self._records, max(tokens - self._tokens, 0))
        self._records, self._tokens = records, tokens
