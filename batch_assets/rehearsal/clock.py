"""The rehearsal's own time, which runs faster than ours, and what is to happen at which moment of it.

What a job does at those moments belongs to `jobs.py`.
"""

import heapq
import itertools
import threading
import time
from collections.abc import Callable

from batch_assets.plain_text import plain_logger

logger = plain_logger(__name__)


class Clock:
    """Virtual unix seconds: they begin at the real time and pass `speed` times as fast."""

    def __init__(self, speed: float = 1.0) -> None:
        self._lock = threading.Lock()
        self._speed = speed
        self._virtual = time.time()
        self._real = time.monotonic()

    @property
    def speed(self) -> float:
        return self._speed

    def now(self) -> float:
        with self._lock:
            return self._virtual + (time.monotonic() - self._real) * self._speed

    def set_speed(self, speed: float) -> None:
        """Run `speed` times as fast from now on; 0 stands still."""
        now = self.now()
        with self._lock:
            self._virtual, self._real, self._speed = now, time.monotonic(), speed

    def advance(self, seconds: float) -> None:
        """Jump ahead by virtual seconds."""
        with self._lock:
            self._virtual += seconds


class Timeline:
    """Actions due at moments of a clock, run one after the other, in order of their moments.

    A thread runs them when they are due; `catch_up` runs what is due at once, so that
    whoever asks sees the state of this moment. Actions are short: work goes to a pool.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._number = itertools.count()
        self._changed = threading.Condition()
        self._running = threading.RLock()
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="rehearsal-timeline", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def at(self, moment: float, action: Callable[[], object]) -> None:
        with self._changed:
            heapq.heappush(self._due, (moment, next(self._number), action))
            self._changed.notify()

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        self.at(self.clock.now() + seconds, action)

    def wake(self) -> None:
        """The clock was changed: look again."""
        with self._changed:
            self._changed.notify()

    def catch_up(self) -> None:
        """Run all that is due now."""
        with self._running:
            while (action := self._next_due()) is not None:
                try:
                    action()
                except Exception:
                    logger.exception("an action of the rehearsal failed")

    def _next_due(self) -> Callable[[], object] | None:
        with self._changed:
            if self._closed or not self._due or self._due[0][0] > self.clock.now():
                return None
            return heapq.heappop(self._due)[2]

    def _loop(self) -> None:
        while not self._closed:
            self.catch_up()
            with self._changed:
                if not self._closed:
                    self._changed.wait(self._pause())

    def _pause(self) -> float | None:
        """Real seconds until the next action; None: until something changes."""
        if not self._due or self.clock.speed == 0:
            return None
        ahead = (self._due[0][0] - self.clock.now()) / self.clock.speed
        return min(max(ahead, 0.0), threading.TIMEOUT_MAX)
