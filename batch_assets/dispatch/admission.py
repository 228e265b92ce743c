"""When the next call may go out: as many at a time as the server can use, and no faster than it takes them.

How many it can use is the window's to find, by what is delivered (`gateway/window.py`). A server that sheds the
worker's calls first, to keep room for live traffic, says by each refusal that it has no slot at the moment: calls in
flight stay, and the next try is made after a pause that grows with refusals and shrinks with tries. So a slot that live
traffic leaves is found within a small part of the time that a call takes, and a server that is full is asked seldom.
"""

import asyncio
import time
from collections.abc import Callable

from batch_assets.gateway.window import Call, Window

FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.005, 15.0
GROWTH, SHRINKAGE = 2.0, 0.9
"""Where one try in seven is refused, the pause stays what it is."""
SHARE_OF_CALL = 0.04
"""The longest pause as a share of a call's time: more and slots stay empty for longer, less and more is refused."""
SHORTEST_LIMIT_SECONDS, LONGEST_LIMIT_SECONDS = 0.02, 1.0
SHEDDING_CALLS, SHEDDING_SECONDS = 10, 10.0
"""So long after a refusal, in times of a call and in seconds at least, a server is known for one that sheds."""
IN_A_ROW = 20
"""After so many refusals, and no call delivered, the longest pause doubles, up to the time of a call."""


class Admission:
    """Places for calls at one server; used in one event loop."""

    def __init__(self, window: Window, clock: Callable[[], float] = time.monotonic) -> None:
        self.window = window
        self._clock = clock
        self._line = asyncio.Lock()
        self._pause = 0.0
        self._next = 0.0
        self._call_seconds = 1.0  # of delivered calls, about
        self._refused_in_a_row = 0
        self._sheds_until = 0.0

    async def enter(self) -> Call:
        """Wait for a place and for the next try's time; first come, first served."""
        if not self._pause and not self._line.locked():
            self._let_one_more()
            return await self.window.enter()
        async with self._line:
            self._let_one_more()
            call = await self.window.enter()
            try:
                while (wait := self._next - self._clock()) > 0:
                    await asyncio.sleep(wait)
            except BaseException:
                self.window.ended(call)
                raise
            self._next = self._clock() + self._pause
            self._pause = self._pause * SHRINKAGE if self._pause > FIRST_PAUSE_SECONDS else 0.0
            return call

    def delivered(self, call: Call) -> None:
        """The server did the work of the call."""
        if self._refused_in_a_row >= IN_A_ROW:
            self._pause = min(self._pause, self._limit())
        self._refused_in_a_row = 0
        self._call_seconds += 0.1 * (self._clock() - call.sent - self._call_seconds)
        if self.window.floor:
            self.window.ended(
                call
            )  # more in flight than the search has asked for: it would learn what is not so
        else:
            self.window.delivered(call)

    def refused(self, call: Call, pause_seconds: float | None = None) -> None:
        """The server has no room; `pause_seconds` is its Retry-After."""
        if pause_seconds:
            self.window.refused(call, pause_seconds)
            return
        self.window.ended(call)
        self._pause = min(max(FIRST_PAUSE_SECONDS, GROWTH * self._pause), self._longest_pause())
        self._next = max(self._next, self._clock() + self._pause)
        self._refused_in_a_row += 1
        self._sheds_until = self._clock() + max(SHEDDING_CALLS * self._call_seconds, SHEDDING_SECONDS)

    def ended(self, call: Call) -> None:
        """The call's end says nothing of the server's room."""
        self.window.ended(call)

    def _let_one_more(self) -> None:
        """A server that sheds says itself how many it takes; the window's search counts for one that does not."""
        sheds = self._clock() < self._sheds_until
        self.window.floor = self.window.in_flight + 1 if sheds else 0

    def _limit(self) -> float:
        return min(max(SHARE_OF_CALL * self._call_seconds, SHORTEST_LIMIT_SECONDS), LONGEST_LIMIT_SECONDS)

    def _longest_pause(self) -> float:
        longest = self._limit() * 2.0 ** min(self._refused_in_a_row // IN_A_ROW, 10)
        return min(longest, max(self._call_seconds, LONGEST_LIMIT_SECONDS), LAST_PAUSE_SECONDS)
