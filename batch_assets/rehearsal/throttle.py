"""Token buckets, as AWS limits its calls: in real time, since that is what clients wait in."""

import threading
import time
from collections.abc import Hashable


class Throttle:
    """One bucket for each key, full at first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: dict[Hashable, tuple[float, float]] = {}

    def admits(self, key: Hashable, per_second: float, burst: float) -> bool:
        """Whether a call may pass; it takes a token if so."""
        burst = max(1.0, burst)
        with self._lock:
            now = time.monotonic()
            tokens, seen = self._buckets.get(key, (burst, now))
            tokens = min(burst, tokens + (now - seen) * per_second)
            admitted = tokens >= 1
            self._buckets[key] = (tokens - 1 if admitted else tokens, now)
            return admitted
