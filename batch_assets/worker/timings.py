"""Where a shard's time went: seconds of each stage, added up over its threads."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timings:
    """Adds to `seconds`, from any thread. A stage of two threads that never wait gathers two seconds a second."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add how long the block takes."""
        started = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - started
            with self._lock:
                self.seconds[name] = self.seconds.get(name, 0.0) + taken
