"""How the command's drivers follow another pipeline: what may begin now, and waiting for the rest.

When a shard may begin, and whether the upstream is at work, `control/chaining.py` knows. A pipeline
over files never waits here.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from batch_assets.control.chaining import (
    is_chained,
    known_upstream,
    look_upstream,
    ready_shards,
    startable_shards,
)
from batch_assets.errors import NotReady
from batch_assets.ledger.rows import ShardRow
from batch_assets.ledger.states import State
from batch_assets.patience import pause

if TYPE_CHECKING:
    from batch_assets.orchestration.driver import Driver

LOOK_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 10.0
UNBEGUN = (State.PLANNED, State.PREPARED)
AT_REST = frozenset({State.PLANNED, State.COLLECTED, State.EXHAUSTED})


class Following:
    """One driver's look at its upstream: what it was when nothing could begin, and what was told of it."""

    def __init__(self, driver: "Driver") -> None:
        self._driver = driver
        self._settings, self._ledger = driver.settings, driver.ledger
        self._chained = is_chained(driver.settings)
        self._looked_at: tuple[int, int] | None = None
        self._nothing_at: tuple[int, int] | None = None
        self._settled_at = 0.0
        self._told: dict[str, str] = {}

    def free(self, rows: Sequence[ShardRow]) -> list[str]:
        """The keys of those that may go on: planned ones only where their records are there."""
        self._keep_up()
        self._looked_at = self._mark()
        planned = [row.key for row in rows if row.state is State.PLANNED]
        ready = ready_shards(self._settings, self._ledger, planned) if self._chained else set(planned)
        return [row.key for row in rows if row.state is not State.PLANNED or row.key in ready]

    def unbegun(self, limit: int) -> list[ShardRow]:
        """Shards that may be prepared or queued now, at most `limit`; cheap while nothing has moved."""
        self._keep_up()
        mark = self._mark()
        states = UNBEGUN[1:] if mark is not None and mark == self._nothing_at else UNBEGUN
        rows = startable_shards(self._settings, self._ledger, states, limit)
        self._nothing_at = mark if not rows else None
        return rows

    def is_over(self) -> bool:
        """Whether no shard that is not there will come: all have ended, or are given up upstream.

        Raises NotReady where shards are still to come, and nobody is at work upstream.
        """
        if not self._chained:
            return False
        counts = self._ledger.counts(self._settings.name)
        if any(count for state, count in counts.items() if state not in AT_REST):
            return False
        if time.monotonic() - self._settled_at < LOOK_SECONDS:
            return False
        self._settled_at = time.monotonic()
        waiting = look_upstream(self._settings, self._ledger)
        if waiting.exhausted:
            self._tell("given up", waiting.given_up())
        if not waiting.keys:
            return not waiting.ready
        if not waiting.at_work and not waiting.ready:
            raise NotReady(waiting.stands_still())
        self._tell("waiting", waiting.sentence())
        return False

    def pause(self) -> None:
        """Sleep until something has moved, here or upstream, since `free` looked; ten seconds at most."""
        deadline = time.monotonic() + LONGEST_PAUSE_SECONDS
        while self._mark() == self._looked_at and time.monotonic() < deadline:
            pause(LOOK_SECONDS)
            if self._looked_at is None:
                return

    def _mark(self) -> tuple[int, int] | None:
        """Differs whenever a shard has moved, here or upstream; None where that is not to be told."""
        own = self._ledger.pipeline(self._settings.name)
        upstream = known_upstream(self._settings, self._ledger) if self._chained else None
        return None if own is None or upstream is None else (own.revision, upstream.revision)

    def _keep_up(self) -> None:
        """Take over what the upstream has planned since."""
        upstream = known_upstream(self._settings, self._ledger) if self._chained else None
        own = self._ledger.pipeline(self._settings.name)
        if upstream is not None and own is not None and upstream.generation > own.generation:
            self._driver.take_over_plan()

    def _tell(self, what: str, news: str) -> None:
        """Say it, once as long as it stays the same; how many are waited for is no news."""
        known = "" if what == "waiting" else news
        if self._told.get(what) != known:
            self._driver.say(news)
        self._told[what] = known
