"""Whether a queue can be reached, and when it is worth asking again: an empty one, or one that is away, less often."""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from batch_assets.dispatch.queues.base import QueueAway
from batch_assets.errors import ConfigurationError
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS

logger = plain_logger(__name__)
Made = TypeVar("Made")
FIRST_POLL_SECONDS, LONGEST_POLL_SECONDS = 0.02, 0.5
"""Between two looks at an empty queue, growing."""


class Connection:
    """One queue's; `name` is for what is told."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._poll_seconds = FIRST_POLL_SECONDS
        self._asks_at = 0.0
        self._away_since: float | None = None
        self._away_pauses = 0

    @property
    def is_away(self) -> bool:
        """Whether the queue has not answered when it was asked last."""
        return self._away_since is not None

    @property
    def wait(self) -> float:
        """Seconds until the queue is worth asking again."""
        return max(0.0, self._asks_at - time.monotonic())

    async def tried(self, step: Callable[[], Awaitable[Made]]) -> Made | None:
        """What the step returns, None where the queue is away."""
        try:
            made = await step()
        except (QueueAway, ConfigurationError) as error:  # a right that was taken away may be given back
            self._note_away(error)
            return None
        self._note_back()
        return made

    def claimed(self, taken: int, asked: int) -> None:
        """So many messages came of those asked for: fewer, and there are no more at present."""
        if taken:
            self._poll_seconds = FIRST_POLL_SECONDS
        elif asked:
            self._asks_at = time.monotonic() + self._poll_seconds
            self._poll_seconds = min(2 * self._poll_seconds, LONGEST_POLL_SECONDS)

    def _note_away(self, error: Exception) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            logger.warning("queue %s is away: %s; no message is claimed until it is back", self._name, error)
        if self.wait <= 0:
            pause = min(FIRST_PAUSE_SECONDS * 2 ** min(self._away_pauses, 30), LONGEST_PAUSE_SECONDS)
            self._away_pauses += 1
            self._asks_at = time.monotonic() + pause

    def _note_back(self) -> None:
        if self._away_since is not None:
            waited = time.monotonic() - self._away_since
            logger.warning("queue %s is back after %.0f s", self._name, waited)
            self._away_since, self._away_pauses, self._asks_at = None, 0, 0.0
