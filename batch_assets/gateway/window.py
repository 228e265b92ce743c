"""How many calls may be in flight at one server: a semaphore whose size finds itself, and which can be closed.

Here is who may call, and when. What size is best is `size_search.py`'s to find; making the call, and telling what its
end means, is the client's. One window per base URL, in one asyncio loop:

    call = await window.enter()
    try:
        ...
        window.delivered(call)
    finally:
        window.ended(call)  # does nothing where the call was delivered or refused
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from batch_assets.gateway.size_search import SizeSearch
from batch_assets.retry_policy import AWAY_SECONDS, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS

TOLERATED_REFUSALS = 0.1
"""One call, and so large a share of the others, may be refused: services lose calls whatever the load, and throughput
tells whether the size is right even so."""
REMEMBERED_FLIGHTS, REMEMBERED_CALLS = 4, 50
"""The share is of the latest calls: so many flights, or calls where the window is small."""
LONGEST_RETRY_AFTER_SECONDS = AWAY_SECONDS
"""A server that asks for a longer pause is asked again after this one."""


@dataclass(slots=True)
class Call:
    """A place in the window, from `enter` until the call is delivered, refused or ended."""

    sent: float
    decreases: int  # of the window, before it was sent
    in_flight: bool = True


class Window:
    """First come, first served; `most` bounds the size, `fixed` sets it."""

    def __init__(
        self, *, most: int = 1024, fixed: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.in_flight = 0
        self.refusals = 0
        self.floor = 0
        """So many calls may be in flight whatever the search says: the server itself tells when it is full."""
        self._clock = clock
        self._fixed = fixed
        self._most = most
        self._search = SizeSearch(most)
        self._waiting: deque[asyncio.Future[Call]] = deque()
        self._decreases = 0
        self._recent_delivered = self._recent_refused = 0  # of calls sent since the last decrease
        self._delivered_since_decrease = False
        self._blackouts = 0  # decreases in a row without a delivery in between
        self._opens_at = 0.0
        self._opening: asyncio.TimerHandle | None = None
        self._call_seconds = 0.0  # the integral of in_flight over time, until _counted_until
        self._counted_until = clock()

    @property
    def size(self) -> int:
        """So many calls may be in flight now."""
        return self._fixed or min(max(self._search.size, self.floor), self._most)

    @property
    def pause(self) -> float:
        """Seconds until calls go out again: the server has asked for it, or refuses everything."""
        return max(0.0, self._opens_at - self._clock()) if self._opening else 0.0

    async def enter(self) -> Call:
        """Wait for room; first come, first served."""
        if self._is_open() and not self._waiting:
            return self._send()
        place: asyncio.Future[Call] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.ended(place.result())  # room was made for it just before it was cancelled
            else:
                with contextlib.suppress(ValueError):  # passed over already
                    self._waiting.remove(place)
            raise

    def delivered(self, call: Call, amount: float = 1.0) -> None:
        """The server did the work of the call, `amount` records."""
        if self._leave(call):
            if self._fixed is None:
                self._learn(call, amount)
            self._admit()

    def refused(self, call: Call, pause_seconds: float | None = None) -> None:
        """The server could not take the call: 429, 503, dropped, timed out; `pause_seconds` is its Retry-After."""
        if self._leave(call):
            self.refusals += 1
            if pause_seconds:
                self._close(min(pause_seconds, LONGEST_RETRY_AFTER_SECONDS))
            if self._fixed is None and call.decreases == self._decreases:
                self._recent_refused += 1
                if self._is_too_much():
                    self._decrease()
            self._admit()

    def ended(self, call: Call) -> None:
        """The call's end says nothing of the server's capacity."""
        if self._leave(call):
            self._admit()

    def _is_open(self) -> bool:
        return self.in_flight < self.size and self._opening is None

    def _send(self) -> Call:
        now = self._count_until_now()
        self.in_flight += 1
        return Call(now, self._decreases)

    def _leave(self, call: Call) -> bool:
        if not call.in_flight:
            return False
        call.in_flight = False
        self._count_until_now()
        self.in_flight -= 1
        return True

    def _count_until_now(self) -> float:
        now = self._clock()
        self._call_seconds += self.in_flight * (now - self._counted_until)
        self._counted_until = now
        return now

    def _admit(self) -> None:
        while self._waiting and self._is_open():
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(self._send())

    def _learn(self, call: Call, amount: float) -> None:
        size, now = self._search.size, self._counted_until
        self._recent_delivered += 1
        if call.decreases == self._decreases:
            self._delivered_since_decrease = True
            if self._blackouts:
                self._blackouts = 0
                self._search.is_back()
        self._search.delivered(now, amount, now - call.sent, self._call_seconds)
        if self._search.size > size:
            self._recent_delivered = self._recent_refused = (
                0  # what a smaller window did excuses no refusals now
            )

    def _is_too_much(self) -> bool:
        remembered = max(REMEMBERED_FLIGHTS * self.size, REMEMBERED_CALLS)
        if self._recent_delivered > remembered:
            share = remembered / self._recent_delivered
            self._recent_delivered, self._recent_refused = (
                remembered,
                max(1, int(self._recent_refused * share)),
            )
        forgiven = 0 if self._blackouts else 1
        return self._recent_refused > forgiven + TOLERATED_REFUSALS * (
            self._recent_delivered + self._recent_refused
        )

    def _decrease(self) -> None:
        """Once per flight: what was sent before is refused for the size before, and changes nothing more."""
        self._decreases += 1
        self._recent_delivered = self._recent_refused = 0
        if self._delivered_since_decrease:
            self._search.refused()
        else:
            self._search.is_away()
            self._close(min(FIRST_PAUSE_SECONDS * 2 ** min(self._blackouts, 30), LONGEST_PAUSE_SECONDS))
            self._blackouts += 1
        self._delivered_since_decrease = False

    def _close(self, seconds: float) -> None:
        opens_at = self._clock() + seconds
        if self._opening is not None:
            if opens_at <= self._opens_at:
                return
            self._opening.cancel()
        self._opens_at = opens_at
        self._opening = asyncio.get_running_loop().call_later(seconds, self._open)

    def _open(self) -> None:
        self._opening = None
        self._admit()
