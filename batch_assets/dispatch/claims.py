"""What the worker holds of one queue: renewed until its end is stored, and ends are stored in groups.

An end that cannot be stored waits in memory, and its message stays claimed meanwhile. How messages are taken is in
`consumer.py`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from batch_assets.crash_points import crash_point
from batch_assets.dispatch.connection import Connection
from batch_assets.dispatch.queues.base import Claimed, Finished, Queue, Returned
from batch_assets.retry_policy import FIRST_PAUSE_SECONDS

MOST_STORED = 512
"""So many ends go into one step at the queue."""


class ClaimLapsed(Exception):
    """A message is not held any more when its turn comes."""


class Claims:
    """Claims of one queue; `stored` is called with how many results there are more, after each group."""

    def __init__(
        self,
        queue: Queue,
        connection: Connection,
        lease_seconds: float,
        stored: Callable[[int], object],
    ) -> None:
        self._queue = queue
        self._connection = connection
        self._lease_seconds = lease_seconds
        self._stored = stored
        self._held: dict[str, Claimed] = {}
        self._held_until: dict[str, float] = {}
        self._finished: list[Finished] = []
        self._returned: list[Returned] = []
        self._ended = 0
        self._something_ended = asyncio.Event()

    @property
    def unstored(self) -> int:
        """Ends that the queue does not know yet."""
        return self._ended

    def add(self, claimed: Claimed, asked_at: float) -> None:
        """Hold a message, which was asked for at this time of the monotonic clock."""
        self._held[key_of(claimed)] = claimed
        self._held_until[key_of(claimed)] = asked_at + self._lease_seconds

    def has_lapsed(self, claimed: Claimed) -> bool:
        """Whether the message was not held for a time, so that somebody else may be at it."""
        return time.monotonic() > self._held_until.get(key_of(claimed), 0.0)

    def finish(self, finished: Finished) -> None:
        """The message has ended; to be stored."""
        self._finished.append(finished)
        self._note_end()

    def give_back(self, returned: Returned) -> None:
        """The message is to be delivered again."""
        self._returned.append(returned)
        self._note_end()

    def _note_end(self) -> None:
        self._ended += 1
        self._something_ended.set()

    async def store_ends(self) -> None:
        """Store ends as they come; runs until it is cancelled."""
        while True:
            await self._something_ended.wait()
            self._something_ended.clear()
            finished, self._finished = self._finished, []
            for start in range(0, len(finished), MOST_STORED):
                group = finished[start : start + MOST_STORED]
                await self._store(group, lambda group=group: self._queue.finish(group))
                self._stored(sum(end.result is not None for end in group))
            returned, self._returned = self._returned, []
            for start in range(0, len(returned), MOST_STORED):
                group = returned[start : start + MOST_STORED]
                await self._store(group, lambda group=group: self._queue.give_back(group))
                self._stored(0)

    async def _store(
        self, group: Sequence[Finished] | Sequence[Returned], step: Callable[[], Awaitable[None]]
    ) -> None:
        async def stored() -> bool:
            await step()
            return True

        crash_point("message-ended")
        while not await self._connection.tried(stored):
            await asyncio.sleep(self._connection.wait or FIRST_PAUSE_SECONDS)
        crash_point("result-stored")
        self._ended -= len(group)
        for end in group:
            self._held.pop(key_of(end.message), None)
            self._held_until.pop(key_of(end.message), None)

    async def hold(self) -> None:
        """Renew the claims of what is held; runs until it is cancelled."""
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            held = list(self._held.values())
            if held:
                await self._connection.tried(lambda held=held: self._extend(held))

    async def _extend(self, held: Sequence[Claimed]) -> bool:
        asked_at = time.monotonic()
        # One that has lapsed may be held again by this, or not: the queue does not say.
        renewed = [key_of(each) for each in held if not self.has_lapsed(each)]
        await self._queue.extend(held, self._lease_seconds)
        for key in renewed:
            if key in self._held_until:
                self._held_until[key] = asked_at + self._lease_seconds
        return True


def key_of(claimed: Claimed) -> str:
    """Tells one claim of a message from all others."""
    return f"{claimed.claim}:{hash(claimed.body)}"
