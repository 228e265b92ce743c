"""One queue as the worker uses it: what it has claimed is held until it is finished, and ends are stored in groups.

A queue that is away is waited for: claims stop, what is finished stays in memory until it can be stored. The kinds of
queues are in `queues/`; what becomes of messages is decided in `pool.py`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from batch_assets.crash_points import crash_point
from batch_assets.dispatch.messages import InvalidMessage, Message, parse, token_of
from batch_assets.dispatch.metrics import Metrics
from batch_assets.dispatch.queues.base import Claimed, Depth, Finished, Named, Queue, QueueAway, Returned
from batch_assets.dispatch.results import ErrorCode
from batch_assets.errors import ConfigurationError
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS

logger = plain_logger(__name__)
Made = TypeVar("Made")
FIRST_POLL_SECONDS, LONGEST_POLL_SECONDS = 0.02, 0.5
"""Between two looks at an empty queue, growing."""
CANCEL_SECONDS = 1.0
"""Between two looks whether somebody has cancelled what is held."""
DEPTH_SECONDS = 5.0
MOST_STORED = 512
"""So many ends go into one step at the queue."""


@dataclass(eq=False, slots=True)
class Delivery:
    """A message in the worker's hands."""

    feed: "Feed"
    claimed: Claimed
    message: Message
    taken_at: float
    task: "asyncio.Task[None] | None" = None
    in_flight: bool = False
    ended_by: str = ""
    """Why its task was cancelled."""

    @property
    def left(self) -> float | None:
        """Seconds until the deadline, by the queue's clock."""
        if self.message.deadline is None:
            return None
        return self.message.deadline - self.feed.now()


@dataclass(frozen=True)
class FeedSettings:
    """How a queue is used: seconds that a claim holds, and unread results at which claims stop."""

    lease_seconds: float = 30.0
    results_max: int = 100_000
    weight: float = 1.0
    tier: int = 0


@dataclass
class _Ends:
    finished: list[Finished] = field(default_factory=list)
    returned: list[Returned] = field(default_factory=list)


class Feed:
    """Claims from one queue and stores how messages ended; `changed` is called when there may be room for more."""

    def __init__(
        self, queue: Queue, settings: FeedSettings, metrics: Metrics, changed: Callable[[], object]
    ) -> None:
        self.queue = queue
        self.name = queue.name
        self.settings = settings
        self.depth: Depth | None = None
        self._metrics = metrics.of_queue(queue.name)
        self._changed = changed
        self._held: dict[str, Claimed] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._ends = _Ends()
        self._something_ended = asyncio.Event()
        self._stored_since_depth = 0
        self._poll_seconds = FIRST_POLL_SECONDS
        self._next_claim = 0.0
        self._away_since: float | None = None
        self._away_pauses = 0
        self._was_full = False

    def now(self) -> float:
        """Unix seconds by the queue's clock."""
        return time.time() + self.queue.clock_ahead

    @property
    def is_away(self) -> bool:
        return self._away_since is not None

    @property
    def unstored(self) -> int:
        """Ends that the queue does not know yet."""
        return len(self._held) - len(self._deliveries)

    @property
    def wait(self) -> float:
        """Seconds until the queue is worth asking again."""
        return max(0.0, self._next_claim - time.monotonic())

    @property
    def is_full(self) -> bool:
        """Whether so many results are unread that no more are made."""
        unread = (self.depth.results if self.depth else 0) + self._stored_since_depth
        return unread >= self.settings.results_max

    def may_claim(self) -> bool:
        return self.wait <= 0 and not self.is_full

    # Taking.

    async def claim(self, most: int, *, expired_only: bool = False) -> list[Delivery]:
        """The next messages that a call can be made of; the others are answered here."""
        taken = await self._tried(
            lambda: self.queue.claim(most, self.settings.lease_seconds, expired_only=expired_only)
        )
        if taken is None:
            return []
        crash_point("message-claimed")
        if not expired_only:
            self._pace(len(taken), most)
        deliveries = self._read(taken)
        known = await self._tried(lambda: self.queue.look_up([_named(each.message) for each in deliveries]))
        if known is None:
            for delivery in deliveries:
                self.give_back(delivery, delivery.claimed.attempts)
            return []
        open_ones: list[Delivery] = []
        for delivery in deliveries:
            name = _named(delivery.message)
            if name in known.finished:
                self._deliveries.pop(_key(delivery.claimed), None)
                self._end(Finished(delivery.claimed, delivery.message.token, None))
                self._metrics.ended("repeated")
            elif name in known.cancelled:
                self.fail(delivery, ErrorCode.CANCELLED, "cancelled before it was sent")
            elif delivery.left is not None and delivery.left <= 0:
                self.expire(delivery)
            else:
                self._metrics.waited(delivery.claimed.arrived or delivery.message.created, self.now())
                open_ones.append(delivery)
        return open_ones

    async def end_expired(self) -> None:
        """Answer what has passed its deadline while nothing can be sent."""
        for delivery in await self.claim(MOST_STORED, expired_only=True):
            self.give_back(
                delivery, delivery.claimed.attempts
            )  # its deadline is not the one it is ordered by

    def _read(self, taken: Sequence[Claimed]) -> list[Delivery]:
        deliveries: list[Delivery] = []
        for claimed in taken:
            self._held[_key(claimed)] = claimed
            try:
                delivery = Delivery(self, claimed, parse(claimed.body), time.monotonic())
            except InvalidMessage as error:
                told = f"{error}"
                result = error.shape.error(ErrorCode.INVALID_REQUEST, told) if error.shape else None
                message_id = error.shape.id_text if error.shape else ""
                logger.warning("queue %s: a message goes to the dead letters: %s", self.name, told)
                self._end(Finished(claimed, token_of(message_id, "", claimed.body), result, is_dead=True))
                self._metrics.ended("invalid")
            else:
                self._deliveries[_key(claimed)] = delivery
                deliveries.append(delivery)
        return deliveries

    def _pace(self, taken: int, asked: int) -> None:
        if taken:
            self._poll_seconds = FIRST_POLL_SECONDS
        if taken < asked:
            self._next_claim = time.monotonic() + (0.0 if taken else self._poll_seconds)
            if not taken:
                self._poll_seconds = min(2 * self._poll_seconds, LONGEST_POLL_SECONDS)

    # Ending.

    def complete(self, delivery: Delivery, status: int, body: bytes) -> None:
        """The message is answered."""
        self._end_delivery(delivery, delivery.message.shape.answer(status, body), "completed")

    def fail(
        self, delivery: Delivery, code: ErrorCode, reason: str, status: int | None = None, body: bytes = b""
    ) -> None:
        """The message has come to nothing, and is told so."""
        result = delivery.message.shape.error(code, reason, status, body)
        self._end_delivery(delivery, result, _ENDS[code], is_dead=code is ErrorCode.INVALID_REQUEST)

    def expire(self, delivery: Delivery, reason: str = "") -> None:
        """Its deadline has passed."""
        told = f"its deadline has passed{': ' if reason else ''}{reason}"
        self.fail(delivery, ErrorCode.DEADLINE_EXCEEDED, told)

    def give_back(self, delivery: Delivery, attempts: int, pause: float = 0.0) -> None:
        """Have it delivered again after `pause` seconds."""
        self._deliveries.pop(_key(delivery.claimed), None)
        self._ends.returned.append(Returned(delivery.claimed, attempts, pause))
        self._something_ended.set()

    def _end_delivery(self, delivery: Delivery, result: bytes, end: str, *, is_dead: bool = False) -> None:
        self._deliveries.pop(_key(delivery.claimed), None)
        self._end(Finished(delivery.claimed, delivery.message.token, result, is_dead))
        self._metrics.ended(end, delivery.claimed.arrived or delivery.message.created, self.now())

    def _end(self, finished: Finished) -> None:
        self._ends.finished.append(finished)
        self._something_ended.set()

    # What goes on beside that.

    async def store_ends(self) -> None:
        """Store ends as they come, in groups; runs until it is cancelled."""
        while True:
            await self._something_ended.wait()
            self._something_ended.clear()
            while self._ends.finished or self._ends.returned:
                finished, self._ends.finished = self._ends.finished, []
                for start in range(0, len(finished), MOST_STORED):
                    group = finished[start : start + MOST_STORED]
                    await self._stored(group, lambda group=group: self.queue.finish(group))
                    self._stored_since_depth += len(group)
                returned, self._ends.returned = self._ends.returned, []
                for start in range(0, len(returned), MOST_STORED):
                    group = returned[start : start + MOST_STORED]
                    await self._stored(group, lambda group=group: self.queue.give_back(group))
                self._changed()

    async def _stored(
        self, group: Sequence[Finished] | Sequence[Returned], step: Callable[[], Awaitable[None]]
    ) -> None:
        crash_point("message-ended")
        while True:
            try:
                await step()
                break
            except (QueueAway, ConfigurationError) as error:
                self._note_away(error)
                await asyncio.sleep(min(self.wait or FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS))
        crash_point("result-stored")
        self._note_back()
        for end in group:
            self._held.pop(_key(end.message), None)

    async def hold(self) -> None:
        """Renew the claims of what is held; runs until it is cancelled."""
        while True:
            await asyncio.sleep(self.settings.lease_seconds / 3)
            held = list(self._held.values())
            if held:
                await self._tried(lambda held=held: self.queue.extend(held, self.settings.lease_seconds))

    async def hear_cancellations(self) -> None:
        """End what somebody has cancelled; runs until it is cancelled itself."""
        while True:
            await asyncio.sleep(CANCEL_SECONDS)
            deliveries = list(self._deliveries.values())
            if not deliveries:
                continue
            names = [_named(delivery.message) for delivery in deliveries]
            known = await self._tried(lambda names=names: self.queue.look_up(names))
            for delivery in deliveries if known is not None else ():
                if _named(delivery.message) in known.cancelled and delivery.task is not None:  # pyright: ignore
                    delivery.ended_by = "cancel"
                    delivery.task.cancel()

    async def watch_depth(self) -> None:
        """Look how much there is, now and then; runs until it is cancelled."""
        while True:
            await self.look_at_depth()
            await asyncio.sleep(DEPTH_SECONDS)

    async def look_at_depth(self) -> Depth | None:
        """How much there is, None where the queue is away."""
        before = self._stored_since_depth
        depth = await self._tried(self.queue.depth)
        if depth is not None:
            self.depth = depth
            self._stored_since_depth -= before
            self._metrics.depth(depth, self.now())
            if self.is_full != self._was_full:
                self._was_full = self.is_full
                told = (
                    "no message is claimed until some are read"
                    if self._was_full
                    else "messages are claimed again"
                )
                logger.warning("queue %s: %d results are unread: %s", self.name, depth.results, told)
            self._changed()
        return depth

    async def _tried(self, step: Callable[[], Awaitable[Made]]) -> Made | None:
        try:
            made = await step()
        except (QueueAway, ConfigurationError) as error:  # a right that was taken away may be given back
            self._note_away(error)
            return None
        self._note_back()
        return made

    def _note_away(self, error: Exception) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            logger.warning("queue %s is away: %s; no message is claimed until it is back", self.name, error)
        pause = min(FIRST_PAUSE_SECONDS * 2 ** min(self._away_pauses, 30), LONGEST_PAUSE_SECONDS)
        if self.wait <= 0:
            self._away_pauses += 1
            self._next_claim = time.monotonic() + pause

    def _note_back(self) -> None:
        if self._away_since is not None:
            waited = time.monotonic() - self._away_since
            logger.warning("queue %s is back after %.0f s", self.name, waited)
            self._away_since, self._away_pauses, self._next_claim = None, 0, 0.0


_ENDS = {
    ErrorCode.DEADLINE_EXCEEDED: "expired",
    ErrorCode.CANCELLED: "cancelled",
    ErrorCode.GATE_DROPPED: "dropped",
    ErrorCode.GATE_ERROR: "dropped",
    ErrorCode.INFERENCE_ERROR: "failed",
    ErrorCode.INVALID_REQUEST: "invalid",
}


def _key(claimed: Claimed) -> str:
    return f"{claimed.claim}:{hash(claimed.body)}"


def _named(message: Message) -> Named:
    return Named(message.id, message.token)
