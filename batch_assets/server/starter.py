"""Carries orders out: one run a pipeline at a time, a few pipelines at once, until the server ends.

Orders that come while their pipeline runs are carried out by one run after it. Whoever carries a
pipeline's orders out has its `start_lease`, so that of two servers on one ledger only one does; what
a dead one has left is taken up by the next.
"""

import threading
from collections.abc import Sequence
from pathlib import Path

from batch_assets.cli import exit_codes
from batch_assets.control.alerts import is_blocked
from batch_assets.control.leases import giving_back, heartbeat
from batch_assets.ledger.holder import Holder
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.triggers import TriggerState, start_lease
from batch_assets.notifications.base import Notifier
from batch_assets.notifications.delivery import notify
from batch_assets.notifications.events import start_failed
from batch_assets.plain_text import plain_logger
from batch_assets.server.child import Child

PIPELINES_AT_ONCE = 4
LOOK_SECONDS = 0.5
LOOK_AT_LEDGER_SECONDS = 10.0
"""How often the ledger is asked for orders that another server has left; its own are heard of at once."""
END_SECONDS = 20.0
logger = plain_logger(__name__)


class Starter:
    """A thread that starts runs and notes their ends."""

    def __init__(
        self, ledger: Ledger, notifiers: Sequence[Notifier], arguments: Sequence[str], folder: Path
    ) -> None:
        """`arguments` go to every `batch-assets run`; `folder` takes what the runs say."""
        self._ledger = ledger
        self._notifiers = notifiers
        self._arguments = arguments
        self._folder = folder
        self._holder = Holder.current()
        self._children: dict[str, Child] = {}
        self._owed = set[str]()
        self._ordered = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="starter", daemon=True)

    def __enter__(self) -> "Starter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._ordered.set()
        self._thread.join()

    def ordered(self) -> None:
        """There is a new order in the ledger."""
        self._ordered.set()

    def _work(self) -> None:
        with heartbeat(self._ledger, self._holder):
            waited = LOOK_AT_LEDGER_SECONDS
            while not self._ending.is_set():
                try:
                    ended = self._note_ends()
                    if ended or self._ordered.is_set() or waited >= LOOK_AT_LEDGER_SECONDS:
                        self._ordered.clear()
                        waited = 0.0
                        self._start_waiting()
                except Exception as error:  # the ledger may be away for a moment, the disk full
                    logger.error(
                        "orders are not carried out: %s: %s; trying again", type(error).__name__, error
                    )
                    waited = LOOK_AT_LEDGER_SECONDS - LOOK_SECONDS
                # Children tell nobody of their end: they are looked at.
                self._ordered.wait(LOOK_SECONDS if self._children else LOOK_AT_LEDGER_SECONDS)
                waited += LOOK_SECONDS if self._children else LOOK_AT_LEDGER_SECONDS
            self._end_children()

    def _start_waiting(self) -> None:
        for pipeline in dict.fromkeys(row.pipeline for row in self._ledger.open_triggers(origin="webhook")):
            if len(self._children) >= PIPELINES_AT_ONCE:
                return
            if pipeline not in self._children:
                self._start(pipeline)

    def _start(self, pipeline: str) -> None:
        if pipeline in self._owed:
            self._give_back(pipeline)
        if self._ledger.lease(start_lease(pipeline), self._holder) is None:
            return
        try:
            # Read with the lease: what is running was left by a server that is dead.
            orders = self._ledger.open_triggers(pipeline, "webhook")
            keys = [order.key for order in orders]
            if keys:
                self._ledger.begin_triggers(pipeline, keys)
                self._children[pipeline] = Child.start(pipeline, keys, self._arguments, self._folder)
        except BaseException as error:
            with giving_back(error):
                self._give_back(pipeline)
            raise
        if pipeline not in self._children:
            self._give_back(pipeline)

    def _give_back(self, pipeline: str) -> None:
        """Give the lease back; one for which the ledger is away is given back before the next start."""
        self._owed.add(pipeline)
        self._ledger.release_lease(start_lease(pipeline), self._holder)
        self._owed.discard(pipeline)

    def _note_ends(self) -> bool:
        """Close the orders of runs that have ended; whether there were any."""
        ended = [child for child in self._children.values() if child.code is not None]
        for child in ended:
            self._close(child)
            del self._children[child.pipeline]
            self._give_back(child.pipeline)
        return bool(ended)

    def _close(self, child: Child) -> None:
        published = child.code in (exit_codes.PUBLISHED, exit_codes.PUBLISHED_WITH_FAULTS)
        said = child.last_line() if child.code != exit_codes.PUBLISHED else None
        if not published and child.code is not None and child.code < 0:
            said = f"the run was ended by signal {-child.code}: {said}"
        state = TriggerState.DONE if published else TriggerState.FAILED
        closed = [key for key in child.keys if self._ledger.close_trigger(child.pipeline, key, state, said)]
        # Of these the run itself has told.
        told = child.code == exit_codes.BUDGET_REACHED or is_blocked(self._ledger, child.pipeline)
        if said is not None and closed and not published and not told:
            told_of = start_failed(child.pipeline, closed[0], said)
            notify(self._ledger.notice_once, self._notifiers, told_of)

    def _end_children(self) -> None:
        """Stop what runs, and leave its orders to the next server."""
        for child in self._children.values():
            child.interrupt()
        for child in self._children.values():
            child.wait(END_SECONDS)
            if child.code is None:
                child.kill()
        for child in self._children.values():
            if child.code in (exit_codes.PUBLISHED, exit_codes.PUBLISHED_WITH_FAULTS):
                self._close(child)
            else:
                self._ledger.put_back_triggers(child.pipeline, child.keys)
            self._ledger.release_lease(start_lease(child.pipeline), self._holder)
