"""Gates that let a share of the window pass: a fixed one, or what a reading leaves. And one that counts messages."""

import asyncio
import math
from collections.abc import Awaitable, Callable

from batch_assets.dispatch.gates.base import Held
from batch_assets.dispatch.messages import Message
from batch_assets.dispatch.metrics import Metrics
from batch_assets.plain_text import plain_logger

logger = plain_logger(__name__)


class _Counting:
    """Counts what has passed and not come back."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._passed = 0

    def admit(self, message: Message) -> Held | None:
        self._passed += 1
        return None

    def release(self, message: Message) -> None:
        self._passed -= 1

    async def watch(self) -> None:
        await asyncio.Event().wait()  # there is nothing to read


class ConcurrencyGate(_Counting):
    """At most `limit` messages at a time, of this worker."""

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(name)
        self._limit = limit

    def room(self) -> float:
        return max(0, self._limit - self._passed)


class ShareGate(_Counting):
    """At most `share` of the window's size, from 0 to 1; a share above 0 is one message at least."""

    def __init__(self, name: str, share: float, window: Callable[[], int]) -> None:
        super().__init__(name)
        self._share = share
        self._window = window

    def room(self) -> float:
        if self._share >= 1:
            return math.inf
        return max(0, math.ceil(self._share * self._window()) - self._passed)


class ReadingGate(ShareGate):
    """The share is what `read` returns, again and again. What cannot be read closes the gate, and is said aloud."""

    def __init__(
        self,
        name: str,
        read: Callable[[], Awaitable[float]],
        window: Callable[[], int],
        metrics: Metrics,
        changed: Callable[[], object],
        *,
        every_seconds: float,
    ) -> None:
        super().__init__(name, 0.0, window)
        self._read = read
        self._every_seconds = every_seconds
        self._changed = changed
        self._is_readable = True
        self._metrics = metrics.of_gate(name)

    async def watch(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self._every_seconds)

    async def look(self) -> None:
        """Read once."""
        try:
            self._share = min(1.0, max(0.0, await self._read()))
        except Unreadable as error:
            self._share = 0.0
            self._metrics.unreadable.inc()
            if self._is_readable:
                logger.warning(
                    "gate %s is closed: %s; it opens when that can be read again", self.name, error
                )
            self._is_readable = False
        else:
            (self._metrics.open if self._share > 0 else self._metrics.closed).inc()
            if not self._is_readable:
                logger.warning("gate %s can be read again", self.name)
            self._is_readable = True
        self._metrics.readable.set(int(self._is_readable))
        self._changed()


class SaturationGate(ReadingGate):
    """What is read is how much of the server is free, this worker's own calls being a part of what is not.

    So it says nothing of how many calls more there is room for: what is under way grows by that share of itself from
    one reading to the next, by one at least, until a reading says that nothing is free.
    """

    _allowed = 0

    def room(self) -> float:
        if self._share >= 1:
            return math.inf
        return max(0, self._allowed - self._passed) if self._share > 0 else 0

    async def look(self) -> None:
        await super().look()
        self._allowed = self._passed + max(1, math.floor(self._share * self._passed))


class Unreadable(Exception):
    """A reading that cannot be had, and why."""
