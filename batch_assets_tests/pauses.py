"""Pauses that pass at once: what code would sleep is skipped, and monotonic time jumps ahead by as much.

For one process and all its threads. Whoever waits for another thread or process waits as ever; a test's own
patience (`waiting.py`) is measured in real time.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from unittest import mock

LONGEST_SECONDS = 0.002
_real_sleep, _real_monotonic = time.sleep, time.monotonic
_lock = threading.Lock()
_skipped = 0.0


def skipped_seconds() -> float:
    """How many seconds of pauses have been skipped in this process."""
    return _skipped


@contextlib.contextmanager
def skipping(notice: Callable[[], object]) -> Iterator[None]:
    """Skip pauses while the block runs; `notice` is called after each, for what sleeps by a clock of its own."""

    def sleep(seconds: float) -> None:
        global _skipped  # noqa: PLW0603
        _real_sleep(min(seconds, LONGEST_SECONDS))
        if seconds > LONGEST_SECONDS:
            with _lock:
                _skipped += seconds - LONGEST_SECONDS
            notice()

    def monotonic() -> float:
        return _real_monotonic() + _skipped

    with (
        mock.patch.object(time, "sleep", sleep),
        mock.patch.object(time, "monotonic", monotonic),
    ):
        yield
