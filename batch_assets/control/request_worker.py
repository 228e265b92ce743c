"""One pipeline of requests at work, for as long as it is asked: windows sealed and planned, shards computed.

The same steps as those of runs in Dagster, without a run each: a window is through in seconds, and Dagster's picture
follows by the daemon's next tick. A thread seals and plans, so that no window waits for what is being computed;
another one ends batches, a third removes what is not kept any longer. Whoever works so holds the pipeline's lease.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence

from batch_assets.control.alerts import alerts_of
from batch_assets.control.batch_ending import BatchEnding
from batch_assets.control.batch_taking import take_batches
from batch_assets.control.collection import collect_shards, collectable
from batch_assets.control.leases import heartbeat
from batch_assets.control.loop import take_turn
from batch_assets.control.pipeline import Pipeline, open_pipeline
from batch_assets.control.preparation import prepare_shards, queue_shards
from batch_assets.control.request_planning import (
    RequestSource,
    plan_requests,
    recover_windows,
    request_source,
)
from batch_assets.control.request_removal import remove_expired
from batch_assets.control.shard_result import Result
from batch_assets.errors import BatchAssetsError
from batch_assets.executors.base import Executor
from batch_assets.ledger.holder import Holder
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets.notifications.base import Notifier
from batch_assets.notifications.delivery import notify
from batch_assets.patience import context_until
from batch_assets.plain_text import plain_logger
from batch_assets.settings.pipeline import PipelineSettings

SHARDS_AT_ONCE = 100
LOOK_SECONDS = 0.25
"""How often the database is asked for what waits."""
REMOVAL_SECONDS = 600.0
"""How often it is looked for requests that are not kept any longer."""
AGAIN_SECONDS = 5.0
"""The pause behind a step that failed."""
logger = plain_logger(__name__)


class RequestWorker:
    """Seals, plans and computes until `ending` is set."""

    def __init__(
        self,
        settings: PipelineSettings,
        ledger: Ledger,
        executor: Executor,
        notifiers: Sequence[Notifier],
        last_tick: Callable[[], float | None],
    ) -> None:
        """`last_tick` tells when the pipeline's schedule was due last (unix seconds); None where it has none."""
        self._settings = settings
        self._ledger = ledger
        self._executor = executor
        self._notifiers = notifiers
        self._last_tick = last_tick
        self._planned = threading.Event()
        self._said: dict[str, str] = {}
        self.ending = threading.Event()

    def run(self) -> None:
        """Work until told to end. Raises ConfigurationError or ModelError where the pipeline cannot work at all."""
        with heartbeat(self._ledger, Holder.current()):
            pipeline = open_pipeline(self._settings, self._ledger, self._executor)
            source = request_source(self._settings, pipeline.storage)
            recover_windows(pipeline, source)
            _ = pipeline.fingerprint
            with (
                self._beside("windows", lambda: self._keep_planning(pipeline, source)),
                self._beside("batches", lambda: self._keep_ending(pipeline, source)),
                self._beside("removal", lambda: self._keep_removing(pipeline, source)),
            ):
                while not self.ending.is_set():
                    self._planned.clear()
                    if not self._try("computing", lambda: self._compute(pipeline)):
                        self._planned.wait(self._pause(pipeline))

    def _pause(self, pipeline: Pipeline) -> float:
        return AGAIN_SECONDS if pipeline.executor.in_place else min(max(pipeline.poll_seconds / 10, 0.1), 2.0)

    def _keep_planning(self, pipeline: Pipeline, source: RequestSource) -> None:
        database = source.windows.database
        is_busy = False
        while not self.ending.wait(0 if is_busy else LOOK_SECONDS):
            is_busy = self._try("taking batches", lambda: take_batches(pipeline, database))
            if self._try("planning", lambda: self._plan(pipeline, source)):
                self._planned.set()

    def _keep_ending(self, pipeline: Pipeline, source: RequestSource) -> None:
        ending = BatchEnding(pipeline, source.windows.database)
        while not self.ending.wait(LOOK_SECONDS):
            self._try("batches", ending.end_batches)

    def _keep_removing(self, pipeline: Pipeline, source: RequestSource) -> None:
        while not self.ending.is_set():
            self._try("removing", lambda: bool(remove_expired(pipeline, source.windows.database)))
            self.ending.wait(REMOVAL_SECONDS)

    @contextlib.contextmanager
    def _beside(self, name: str, work: Callable[[], None]) -> Iterator[None]:
        """Have a thread do some work while the block runs."""
        thread = threading.Thread(target=context_until(self.ending).run, args=(work,), name=name, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.ending.set()
            thread.join()

    def _plan(self, pipeline: Pipeline, source: RequestSource) -> bool:
        return bool(plan_requests(pipeline, source, sealed_before=self._last_tick()))

    def _try(self, what: str, step: Callable[[], bool]) -> bool:
        """Whether the step did anything; one that fails is told of once, and tried again in a while."""
        try:
            done = step()
        except KeyboardInterrupt:
            if not self.ending.is_set():
                raise
            return False  # it waited for something, and is to wait no longer
        except BatchAssetsError as error:
            if str(error) != self._said.get(what):
                logger.error("%s: %s: %s; trying again", self._settings.name, what, error)
            self._said[what] = str(error)
        except Exception:
            logger.exception("%s: %s; trying again", self._settings.name, what)
        else:
            if done:
                self._said.pop(what, None)
            return done
        self.ending.wait(AGAIN_SECONDS)
        return False

    def _compute(self, pipeline: Pipeline) -> bool:
        if pipeline.ledger.stop_requested(pipeline.name):
            return False
        done = prepare_planned(pipeline)
        if not pipeline.executor.in_place:
            turn = take_turn([pipeline])
            for alert in alerts_of(pipeline, turn):
                notify(pipeline.ledger.notice_once, self._notifiers, alert)
        for result in collect_shards(pipeline, keys) if (keys := collectable_now(pipeline)) else ():
            done |= result.result in (Result.COLLECTED, Result.VERIFIED, Result.CONTINUED, Result.EXHAUSTED)
            if result.marker is None:
                logger.warning("%s", result.message)
            if self.ending.is_set():
                break
        return done


def prepare_planned(pipeline: Pipeline) -> bool:
    """Check and queue what is planned, a bounded number of shards; whether there was any."""
    rows = pipeline.ledger.shards(pipeline.name, states=(State.PLANNED, State.PREPARED), limit=SHARDS_AT_ONCE)
    keys = [row.key for row in rows]
    if keys:
        for prepared in prepare_shards(pipeline, keys):
            if prepared.error:
                logger.error("shard %s: %s", prepared.key, prepared.error)
        queue_shards(pipeline, keys)
    return bool(keys)


def collectable_now(pipeline: Pipeline) -> list[str]:
    """The shards that can be computed here, or have been at the service: those of the dead among them."""
    ledger, name = pipeline.ledger, pipeline.name
    if not pipeline.executor.in_place:
        return collectable(pipeline, [row.key for row in ledger.finished(name, SHARDS_AT_ONCE)])
    rows = ledger.shards(name, states=(State.READY, State.RUNNING, State.COLLECTING), limit=SHARDS_AT_ONCE)
    return [row.key for row in rows if row.state is State.READY or not ledger.is_held(name, row.key)]
