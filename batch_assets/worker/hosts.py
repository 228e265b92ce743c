"""Hosts that are down: what is remembered of them, so that not every record waits for them."""

import threading
import time
from typing import NamedTuple

from batch_assets.retry_policy import HOST_FAILURES, HOST_REST_SECONDS

MOST_HOSTS = 10_000


class _Failures(NamedTuple):
    """Failures in a row, when the last one was, and its reason."""

    in_a_row: int
    last: float
    reason: str


class Hosts:
    """Counts failed attempts in a row at each host; a host of HOST_FAILURES is left alone for a while.

    After HOST_REST_SECONDS it is asked again: one more failure, and it rests again.
    """

    def __init__(self) -> None:
        self._failures: dict[str, _Failures] = {}
        self._lock = threading.Lock()

    def rests(self, host: str) -> str | None:
        """Why the host is to be left alone now: the last failure's reason; None where it is not."""
        found = self._failures.get(host)
        if found is None or found.in_a_row < HOST_FAILURES:
            return None
        return found.reason if time.monotonic() - found.last < HOST_REST_SECONDS else None

    def failure(self, host: str, reason: str) -> None:
        """An attempt failed by the host's fault, or the network's."""
        with self._lock:
            before = self._failures.pop(host, None)
            in_a_row = 1 if before is None else before.in_a_row + 1
            self._failures[host] = _Failures(in_a_row, time.monotonic(), reason)
            if len(self._failures) > MOST_HOSTS:
                del self._failures[next(iter(self._failures))]

    def success(self, host: str) -> None:
        """The host has answered."""
        if host in self._failures:
            with self._lock:
                self._failures.pop(host, None)
