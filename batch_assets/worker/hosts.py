"""Hosts that are down: what is remembered of them, so that not every record waits for them."""

import threading
import time

FAILURES_IN_A_ROW = 24
REST_SECONDS = 60.0
MOST_HOSTS = 10_000


class Hosts:
    """Counts failed attempts in a row at each host; a host of FAILURES_IN_A_ROW is left alone for a while.

    After REST_SECONDS it is asked again: one more failure, and it rests again.
    """

    def __init__(self) -> None:
        self._failures: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def rests(self, host: str) -> bool:
        """Whether the host is to be left alone now."""
        count, last = self._failures.get(host, (0, 0.0))
        return count >= FAILURES_IN_A_ROW and time.monotonic() - last < REST_SECONDS

    def failure(self, host: str) -> None:
        """An attempt failed by the host's fault, or the network's."""
        with self._lock:
            count, _ = self._failures.pop(host, (0, 0.0))
            self._failures[host] = count + 1, time.monotonic()
            if len(self._failures) > MOST_HOSTS:
                del self._failures[next(iter(self._failures))]

    def success(self, host: str) -> None:
        """The host has answered."""
        if host in self._failures:
            with self._lock:
                self._failures.pop(host, None)
