"""How fast calls may go out, by a provider's limits of requests and tokens per minute.

Two accounts, filled by the second and drawn on by each call; one line, in which whoever comes first goes first. How
many calls are in flight is `window.py`'s matter.
"""

import asyncio
import time
from collections.abc import Callable

BURST_SECONDS = 3.0
"""So much of a minute's allowance may go out at once after a rest: providers count by shorter spans than minutes."""
MINUTE = 60.0
MOMENT_SECONDS = 1e-6
"""A shorter wait is none: after it, a clock may tell the same time as before."""


class _Account:
    """An allowance that fills by the second up to a burst; what is overdrawn is paid off before the next call."""

    def __init__(self, per_minute: float, now: float) -> None:
        self._per_second = per_minute / MINUTE
        # Never less than one request: a limit below 20 requests a minute has bursts of one.
        self._most = max(self._per_second * BURST_SECONDS, 1.0)
        self._left = self._most
        self._filled_at = now

    def wait(self, wanted: float, now: float) -> float:
        """Seconds until `wanted` is there, or the account is full, where it is more than the account ever holds."""
        self._left = min(self._most, self._left + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        return (min(wanted, self._most) - self._left) / self._per_second

    def take(self, amount: float) -> None:
        self._left = min(self._most, self._left - amount)


class Governor:
    """Calls go out no faster than the limits, first come, first served; None is no limit."""

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._requests = _Account(requests_per_minute, clock()) if requests_per_minute else None
        self._tokens = _Account(tokens_per_minute, clock()) if tokens_per_minute else None
        self._line = asyncio.Lock()  # serves its waiters in order, and forgets those that are cancelled

    async def take(self, tokens: float) -> None:
        """Wait until a call of at most so many tokens may go out."""
        if self._requests is None and self._tokens is None:
            return
        async with self._line:
            while (wait := self._wait(tokens)) > MOMENT_SECONDS:
                await asyncio.sleep(wait)
            if self._requests:
                self._requests.take(1)
            if self._tokens:
                self._tokens.take(tokens)

    def refund(self, tokens: float) -> None:
        """The call used so many tokens fewer than it took; negative where it used more."""
        if self._tokens:
            self._tokens.take(-tokens)

    def _wait(self, tokens: float) -> float:
        now = self._clock()
        requests = self._requests.wait(1, now) if self._requests else 0.0
        return max(requests, self._tokens.wait(tokens, now) if self._tokens else 0.0)
