"""The command's way with a deferred executor: upload, take turns of the control loop, collect what has ended.

The same loop as the `job_completion` sensor's, in a thread of this process, so that no daemon
is needed and slots are filled while shards are uploaded and collected.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from batch_assets.control.alerts import alerts_of
from batch_assets.control.changed_settings import follow_settings
from batch_assets.control.loop import Turn, take_turn
from batch_assets.control.pipeline import Pipeline, open_pipeline
from batch_assets.errors import BudgetReached, StorageError, SubmissionRefused
from batch_assets.executors.service_jobs import Unanswered
from batch_assets.ledger.states import AT_SERVICE, ENDED, UNFINISHED, State
from batch_assets.notifications.delivery import notify
from batch_assets.notifications.registry import create_notifiers
from batch_assets.orchestration.following import Following
from batch_assets.orchestration.metadata import COLLECT_TAG, JOB_KIND_TAG
from batch_assets.orchestration.partitions import SHARDS_PER_RUN
from batch_assets.orchestration.run_failure import RunFailed
from batch_assets.orchestration.silence import Silence
from batch_assets.patience import Patience, context_until, pause

if TYPE_CHECKING:
    from batch_assets.orchestration.driver import Driver

LONGEST_WAIT_SECONDS = 2.0
COLLECTED_AT_ONCE = 1_000
CALLED_AT_ONCE = 1  # shards whose records are called for one by one: what has ended meanwhile goes first


def embed_at_service(driver: "Driver") -> None:
    """Bring every shard to its end. Raises BudgetReached, SubmissionRefused, RunFailed, StorageError."""
    settings, ledger = driver.settings, driver.ledger
    pipeline = driver.insist(lambda: open_pipeline(settings, ledger, driver.host.executor(settings)))
    follow_settings(pipeline)  # turns ask only where something is queued
    known, patience, following = _Known(driver), Patience(driver.say), Following(driver)
    with _Turns(driver, pipeline).taken() as turns:
        while _unfinished(pipeline):
            _refuse_stopped(pipeline)
            # By turns: what has ended gives its money back, and is not to wait for the last upload.
            uploaded, failed = _upload(driver, following)
            collected, failed_too = _collect(driver, turns.silence) if failed is None else (False, None)
            known.tell()
            if (failed := failed or failed_too) is not None:
                if not isinstance(failed, StorageError):
                    raise failed
                patience.wait(failed)
                continue
            patience.renew()
            if not (uploaded or collected):
                turns.check()
                if following.is_over():
                    return
                pause(turns.seconds)


def _unfinished(pipeline: Pipeline) -> bool:
    counts = pipeline.ledger.counts(pipeline.name)
    return any(counts[state] for state in UNFINISHED)


def _refuse_stopped(pipeline: Pipeline) -> None:
    if pipeline.ledger.stop_requested(pipeline.name):
        raise RunFailed(f"pipeline {pipeline.name} was stopped; the same command goes on")
    if pipeline.ledger.counts(pipeline.name)[State.STOPPED]:
        # Stopped by an order that was lifted while it was carried out: nobody else starts them.
        pipeline.ledger.start_again(pipeline.name)


def _upload(driver: "Driver", following: Following) -> tuple[bool, Exception | None]:
    """Upload a run's worth of shards that wait for it; False where there are none."""
    if _is_failing(driver):
        return False, None  # what is under way is collected first: it may do well
    rows = following.unbegun(2 * SHARDS_PER_RUN)
    fresh = [row.key for row in rows if not driver.held(row)][:SHARDS_PER_RUN]
    if not fresh:
        return False, None
    failed = driver.materialize_shards(("input_shards", "submitted_jobs"), fresh)
    if isinstance(failed, SubmissionRefused) and _is_failing(driver):
        return False, None  # since this run began, by what another one has collected
    return True, failed


def _is_failing(driver: "Driver") -> bool:
    """Whether nothing is submitted because jobs fail as a whole."""
    return driver.ledger.money(driver.settings.name).blocked_kind == "failing"


def _collect(driver: "Driver", silence: Silence) -> tuple[bool, Exception | None]:
    """Collect what has ended at the service, else call for a shard of few records."""
    rows = driver.ledger.finished(driver.settings.name, COLLECTED_AT_ONCE)
    ended = [row.key for row in rows if row.state is not State.READY]
    kind, keys = "batch", ended
    if not ended:
        kind, keys = "on_demand", [row.key for row in rows][:CALLED_AT_ONCE]
    if not keys:
        return False, None
    tags = {COLLECT_TAG: "finished", JOB_KIND_TAG: kind}
    failed = driver.materialize_shards(("embedding_outputs",), keys, tags)
    if isinstance(failed, Unanswered):
        silence.judge_collection(str(failed))
        return True, None
    if failed is None:
        silence.judge_collection(None)
    return True, failed


class _Turns:
    """Turns of the control loop, taken in a thread until the block ends."""

    def __init__(self, driver: "Driver", pipeline: Pipeline) -> None:
        self._driver = driver
        self._pipeline = pipeline
        self._notifiers = create_notifiers()
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._said = ""
        self.silence = Silence(pipeline, Patience(driver.say, pause=self._stop.wait))
        self.seconds = min(max(pipeline.poll_seconds / 10, 0.1), LONGEST_WAIT_SECONDS)

    @contextlib.contextmanager
    def taken(self) -> Iterator["_Turns"]:
        thread = threading.Thread(
            target=context_until(self._stop).run, args=(self._take,), name="control-loop", daemon=True
        )
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()

    def _take(self) -> None:
        while not self._stop.wait(self.seconds):
            try:
                turn = take_turn([self._pipeline])
                for alert in alerts_of(self._pipeline, turn):
                    notify(self._driver.ledger.notice_once, self._notifiers, alert)
                self._say(turn)
                self.silence.judge(turn)
            except BaseException as error:
                self._error = error
                return

    def _say(self, turn: Turn) -> None:
        """Tell what the service would not do, once as long as it stays the same."""
        news = "; ".join([*turn.problems, *dict.fromkeys(turn.refused.values())])
        if news and news != self._said:
            self._driver.say(news)
        self._said = news

    def check(self) -> None:
        """Raise what the thread has met, and where nothing that runs could let the queue go on."""
        if self._error is not None:
            raise self._error
        ledger, name = self._pipeline.ledger, self._pipeline.name
        if self._moves():
            return
        # What was collected last may have given money or slots back: only a turn from now on tells.
        turn = take_turn([self._pipeline])
        self.silence.judge(turn)
        if self._moves() or turn.started:
            return
        money = ledger.money(name)
        if money.blocked_kind == "budget" and money.blocked:
            raise BudgetReached(f"pipeline {name}: {money.blocked}")
        if refused := turn.refused.get(name, money.refused):
            raise SubmissionRefused(refused)

    def _moves(self) -> bool:
        """Whether anything runs, or has ended and is not collected."""
        counts = self._pipeline.ledger.counts(self._pipeline.name)
        return any(counts[state] for state in (*AT_SERVICE, *ENDED, State.COLLECTING))


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
