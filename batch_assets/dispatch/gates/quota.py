"""No tenant has more than its share: so many messages at a time, or so many a minute, of one worker.

A message over the quota goes back into the queue until its turn comes, so that it holds nobody else up and is not
asked for again and again meanwhile.
"""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from batch_assets.dispatch.gates.base import Held
from batch_assets.dispatch.messages import Message

FEWEST_SECONDS, MOST_SECONDS = 0.25, 60.0
_REMEMBERED = 100_000
"""So many tenants are known at a time; who has nothing under way is forgotten first."""


class QuotaGate:
    """`limit` messages at a time, or per `window_seconds`, for each value of `field` (metadata.userid, as a rule)."""

    def __init__(
        self,
        name: str,
        limit: float,
        *,
        field: str = "metadata.userid",
        window_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._limit = limit
        self._field = field.split(".")
        self._window_seconds = window_seconds
        self._clock = clock
        self._under_way: defaultdict[str, int] = defaultdict(int)
        self._seconds: defaultdict[str, float] = defaultdict(lambda: 1.0)  # that a message takes, about
        self._since: dict[int, float] = {}
        self._next: dict[str, float] = {}
        self._free: dict[str, float] = {}

    def room(self) -> float:
        return math.inf

    def admit(self, message: Message) -> Held | None:
        tenant = self._tenant(message)
        if tenant is None:
            return None
        return self._at_a_time(tenant, message) if self._window_seconds is None else self._per_window(tenant)

    def release(self, message: Message) -> None:
        tenant = self._tenant(message)
        since = self._since.pop(id(message), None)
        if tenant is None or since is None:
            return
        self._under_way[tenant] -= 1
        self._seconds[tenant] += 0.2 * (self._clock() - since - self._seconds[tenant])
        if self._under_way[tenant] <= 0:
            del self._under_way[tenant]
            if len(self._seconds) > _REMEMBERED:
                self._seconds.clear()

    async def watch(self) -> None:
        await asyncio.Event().wait()  # there is nothing to read

    def _tenant(self, message: Message) -> str | None:
        value: Any = {"metadata": message.metadata, "id": message.id}
        for name in self._field:
            value = value.get(name) if isinstance(value, dict) else None  # pyright: ignore
        return None if value is None else str(value)  # pyright: ignore

    def _at_a_time(self, tenant: str, message: Message) -> Held | None:
        if self._under_way[tenant] < self._limit:
            self._under_way[tenant] += 1
            self._since[id(message)] = self._clock()
            return None
        # Its turn: as many messages of the tenant as wait before it, at the rate at which they end.
        now = self._clock()
        step = self._seconds[tenant] / self._limit
        turn = max(self._next.get(tenant, 0.0), now) + step
        turn = min(turn, now + MOST_SECONDS)
        self._next[tenant] = turn
        self._trim(self._next, now)
        return Held(max(FEWEST_SECONDS, turn - now), f"{tenant} has {self._limit:g} messages under way")

    def _per_window(self, tenant: str) -> Held | None:
        """A bucket that refills evenly; a message that is held back is told when there is a place for it."""
        assert self._window_seconds is not None
        now, step = self._clock(), self._window_seconds / self._limit
        full = max(self._window_seconds, step)  # a limit below 1 is one message in several windows
        free = max(self._free.get(tenant, 0.0), now - full)
        if free + step <= now + step / 1e6:
            self._free[tenant] = free + step
            self._trim(self._free, now - full)
            return None
        turn = max(self._next.get(tenant, 0.0), free + step, now)
        self._next[tenant] = min(turn + step, now + MOST_SECONDS)
        self._trim(self._next, now)
        return Held(
            min(MOST_SECONDS, max(FEWEST_SECONDS, turn - now)),
            f"{tenant} has had {self._limit:g} messages in {self._window_seconds:g} s",
        )

    @staticmethod
    def _trim(times: dict[str, float], before: float) -> None:
        if len(times) > _REMEMBERED:
            for tenant in [tenant for tenant, at in times.items() if at < before]:
                del times[tenant]
