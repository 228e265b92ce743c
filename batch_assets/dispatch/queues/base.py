"""What every kind of queue does for the worker. A message is claimed for a time, never taken out.

A claim that is not renewed runs out, and the message is delivered again. Whoever finishes a message first has finished
it: its token is remembered, and no second result is stored for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from batch_assets.errors import BatchAssetsError

REMEMBERED_SECONDS = 86_400.0
"""So long the tokens of finished messages are known: what is delivered again by then is not asked again."""
NO_DEADLINE = 2.0**53
"""Where a message without a deadline stands in an order by deadlines: after all that have one."""
CANCELLED_SECONDS = 7 * 86_400.0
"""So long an id stays cancelled, as in llm-d."""


class QueueAway(BatchAssetsError):
    """The queue's server does not answer, or cannot take what it is told, now."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message as its producer wrote it. `claim` is how the queue knows this claim; `attempts` went before it."""

    body: bytes
    claim: str
    attempts: int = 0
    arrived: float | None = None
    """Unix seconds of the queue's clock, where the queue knows."""


class Ending(StrEnum):
    """What has become of a message that has ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a message, with its result, if it has an id. `ending` is None where its end is stored already."""

    message: Claimed
    token: str
    result: bytes | None
    ending: Ending | None

    @property
    def is_dead(self) -> bool:
        """Whether the message also goes to the dead letters."""
        return self.ending is Ending.INVALID


@dataclass(frozen=True, slots=True)
class Returned:
    """A message that is to be delivered again, after `pause` seconds; `attempts` counts the tries so far."""

    message: Claimed
    attempts: int
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class Named:
    """By what a message is looked up."""

    id: str
    token: str


@dataclass(frozen=True, slots=True)
class Known:
    """Of messages that were looked up: the ids that somebody has cancelled, the tokens that are finished."""

    cancelled: frozenset[Named]
    finished: frozenset[Named]


@dataclass(frozen=True, slots=True)
class Depth:
    """How much there is. `oldest` and `first_deadline` are Unix seconds, None where the queue cannot tell."""

    waiting: int
    claimed: int
    results: int
    oldest: float | None = None
    first_deadline: float | None = None


class Queue(Protocol):
    """One queue, with the queue of its results. All calls raise QueueAway where the server is away."""

    name: str
    is_ordered: bool
    """Whether messages come in the order of their deadlines."""

    @property
    def clock_ahead(self) -> float:
        """Seconds by which the queue's clock is ahead of this machine's, as heard last."""
        ...

    async def open(self) -> None:
        """Connect. Raises ConfigurationError where the queue can never be used."""
        ...

    async def close(self) -> None: ...

    async def put(self, bodies: Sequence[bytes]) -> None:
        """Add messages, in this order."""
        ...

    async def claim(self, most: int, lease_seconds: float, *, expired_only: bool = False) -> list[Claimed]:
        """The next messages, at most `most`; `expired_only` those past their deadline, where the queue can tell."""
        ...

    async def extend(self, messages: Sequence[Claimed], lease_seconds: float) -> None:
        """Hold the claims for `lease_seconds` from now. One that has passed to somebody else stays theirs."""
        ...

    async def look_up(self, names: Sequence[Named]) -> Known: ...

    async def finish(self, ended: Sequence[Finished]) -> None:
        """Store results and take the messages out, in one step where the queue has one; the first result counts."""
        ...

    async def give_back(self, returned: Sequence[Returned]) -> None:
        """Have the messages delivered again; nothing happens to those claimed by somebody else since."""
        ...

    async def cancel(self, message_id: str) -> None:
        """Have whoever deals with messages of this id answer CANCELLED."""
        ...

    async def take_results(self, most: int) -> list[bytes]:
        """Take results out, oldest first."""
        ...

    # These two change nothing, and need no `open`.

    async def depth(self) -> Depth: ...

    async def endings(self) -> Mapping[Ending, int]:
        """How many messages have ended so, each counted once, since the queue was made."""
        ...
