"""A cap on calls per second to others' servers, kept by all threads of a process together.

Workers cannot reach the ledger, so nobody counts for all of them: each keeps to its share of a
pipeline's cap, which whoever starts the worker works out. What a call is, `web.py` knows.
"""

import threading
import time
from collections.abc import Callable

Stopped = Callable[[float], bool]
"""Waits at most so many seconds for the order to stop; whether that has come. As `threading.Event.wait`."""


class Pacer:
    """Lets calls go one by one, evenly spread: never two within less than 1 / `calls_per_second` seconds.

    There is no credit for a time without calls: a burst is what servers answer with "slow down".
    """

    def __init__(self, calls_per_second: float) -> None:
        self._interval = 1 / calls_per_second
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self, stopped: Stopped) -> float:
        """Wait for this call's turn, in the order of asking; the seconds waited. Ends at once when stopped."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._interval
        if turn > now:
            stopped(turn - now)
        return turn - now


_pacers: dict[tuple[str, float], Pacer] = {}
_lock = threading.Lock()


def shared_pacer(name: str, calls_per_second: float) -> Pacer:
    """The process's one pacer of a pipeline's calls: from one shard to the next, and of two at a time."""
    with _lock:
        return _pacers.setdefault((name, calls_per_second), Pacer(calls_per_second))
