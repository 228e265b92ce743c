"""A look at a queue from outside: how much there is, and how messages have ended. It changes nothing.

The worker's own looks are in `consumer.py`.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from batch_assets.dispatch.queues.base import Depth, Ending, QueueAway
from batch_assets.dispatch.queues.urls import OpenDatabase, queue_of

MOST_SECONDS = 30.0
"""A queue that takes longer to answer is away."""


@dataclass(frozen=True)
class Look:
    """What there was at the time `at`, in Unix seconds by the queue's clock."""

    at: float
    depth: Depth
    endings: Mapping[Ending, int]

    @property
    def overdue_seconds(self) -> float:
        """By how much the first deadline of a message that nobody holds has passed."""
        return _since(self.depth.first_deadline, self.at)

    @property
    def oldest_seconds(self) -> float:
        """Age of the oldest message, 0 where the queue does not know."""
        return _since(self.depth.oldest, self.at)


def look_at(url: str, results: str | None, open_database: OpenDatabase) -> Look:
    """Ask the queue at `url`, with its results at `results`. Raises QueueAway and ConfigurationError."""

    async def look() -> Look:
        queue = queue_of(url, results, open_database)
        try:
            async with asyncio.timeout(MOST_SECONDS):
                depth, endings = await queue.depth(), await queue.endings()
        except TimeoutError:
            raise QueueAway(f"queue {queue.name}: no answer in {MOST_SECONDS:g} seconds") from None
        finally:
            await queue.close()
        return Look(time.time() + queue.clock_ahead, depth, endings)

    return asyncio.run(look())


def _since(moment: float | None, now: float) -> float:
    # A producer may have put a message into Redis before all time; what is told stays a number.
    return 0.0 if moment is None else max(0.0, now - max(moment, 0.0))
