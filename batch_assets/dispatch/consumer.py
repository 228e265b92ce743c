"""One queue as the worker uses it: messages are taken from it, and told how they have ended.

What is held until its end is stored is in `claims.py`, the kinds of queues are in `queues/`; what becomes of messages
is decided in `pool.py`.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from batch_assets.crash_points import crash_point
from batch_assets.dispatch.claims import MOST_STORED, Claims, key_of
from batch_assets.dispatch.connection import Connection
from batch_assets.dispatch.gates.base import Gate, room_of
from batch_assets.dispatch.messages import InvalidMessage, Message, parse, token_of
from batch_assets.dispatch.metrics import REPEATED, Metrics
from batch_assets.dispatch.queues.base import Claimed, Depth, Ending, Finished, Named, Queue, Returned
from batch_assets.dispatch.results import ErrorCode
from batch_assets.plain_text import plain_logger

logger = plain_logger(__name__)
CANCEL_SECONDS = 1.0
"""Between two looks whether somebody has cancelled what is held."""
DEPTH_SECONDS = 5.0
_ENDINGS = {
    ErrorCode.DEADLINE_EXCEEDED: Ending.EXPIRED,
    ErrorCode.CANCELLED: Ending.CANCELLED,
    ErrorCode.INFERENCE_ERROR: Ending.FAILED,
    ErrorCode.INVALID_REQUEST: Ending.INVALID,
}


@dataclass(eq=False, slots=True)
class Delivery:
    """A message in the worker's hands."""

    consumer: "Consumer"
    claimed: Claimed
    message: Message
    sent_at: float = 0.0
    task: "asyncio.Task[None] | None" = None
    in_flight: bool = False
    is_cancelled: bool = False
    """By somebody who does not want its answer any more."""

    @property
    def left(self) -> float | None:
        """Seconds until the deadline, by the queue's clock."""
        if self.message.deadline is None:
            return None
        return self.message.deadline - self.consumer.now()


class Consumer:
    """Takes messages from one queue, through `gates`. `changed` is called when there may be room for more."""

    def __init__(
        self,
        queue: Queue,
        metrics: Metrics,
        changed: Callable[[], object],
        *,
        lease_seconds: float,
        results_max: int,
        gates: Sequence[Gate] = (),
        weight: float = 1.0,
        tier: int = 0,
    ) -> None:
        self.queue = queue
        self.name = queue.name
        self.gates = gates
        self.weight, self.tier = weight, tier
        self.depth: Depth | None = None
        self.connection = Connection(queue.name)
        self.claims = Claims(queue, self.connection, lease_seconds, self._stored)
        self._lease_seconds = lease_seconds
        self._results_max = results_max
        self._metrics = metrics.of_queue(queue.name)
        self._changed = changed
        self._deliveries: dict[str, Delivery] = {}
        self._stored_since_depth = 0
        self._was_full = False

    def now(self) -> float:
        """Unix seconds by the queue's clock."""
        return time.time() + self.queue.clock_ahead

    @property
    def is_full(self) -> bool:
        """Whether so many results are unread that no more are made."""
        unread = (self.depth.results if self.depth else 0) + self._stored_since_depth
        return unread >= self._results_max

    def room(self) -> float:
        """How many messages its gates let pass now."""
        return room_of(self.gates)

    def may_claim(self) -> bool:
        """Whether the queue is worth asking now."""
        return self.connection.wait <= 0 and not self.is_full and self.room() >= 1

    # Taking.

    async def claim(self, most: int, *, expired_only: bool = False) -> list[Delivery]:
        """The next messages that a call can be made of; the others are answered here."""
        asked_at = time.monotonic()
        taken = await self.connection.tried(
            lambda: self.queue.claim(most, self._lease_seconds, expired_only=expired_only)
        )
        if taken is None:
            return []
        crash_point("message-claimed")
        if not expired_only:
            self.connection.claimed(len(taken), most)
        deliveries = self._read(taken, asked_at)
        known = await self.connection.tried(
            lambda: self.queue.look_up([_named(each.message) for each in deliveries])
        )
        if known is None:
            for delivery in deliveries:
                self.give_back(delivery, delivery.claimed.attempts)
            return []
        open_ones: list[Delivery] = []
        for delivery in deliveries:
            name = _named(delivery.message)
            if name in known.finished:
                self._end(delivery, None, None)
            elif name in known.cancelled:
                self.fail(delivery, ErrorCode.CANCELLED, "cancelled before it was sent")
            elif delivery.left is not None and delivery.left <= 0:
                self.expire(delivery)
            else:
                self._metrics.waited(_arrival(delivery), self.now())
                open_ones.append(delivery)
        return open_ones

    async def end_expired(self) -> None:
        """Answer what has passed its deadline while nothing can be sent."""
        for delivery in await self.claim(MOST_STORED, expired_only=True):
            # Its producer has put it into the order by another deadline than its own.
            self.give_back(delivery, delivery.claimed.attempts)

    def _read(self, taken: Sequence[Claimed], asked_at: float) -> list[Delivery]:
        deliveries: list[Delivery] = []
        for claimed in taken:
            self.claims.add(claimed, asked_at)
            try:
                delivery = Delivery(self, claimed, parse(claimed.body))
            except InvalidMessage as error:
                self._bury(claimed, error)
            except Exception:
                # A fault of ours: the message is kept, and stops no other.
                logger.exception("queue %s: a message cannot be read", self.name)
                self._bury(claimed, InvalidMessage("this version of Batch Assets cannot read it"))
            else:
                self._deliveries[key_of(claimed)] = delivery
                deliveries.append(delivery)
        return deliveries

    def _bury(self, claimed: Claimed, error: InvalidMessage) -> None:
        logger.warning("queue %s: a message goes to the dead letters: %s", self.name, error)
        result = error.shape.error(ErrorCode.INVALID_REQUEST, str(error)) if error.shape else None
        message_id = error.shape.id_text if error.shape else ""
        self.claims.finish(Finished(claimed, token_of(message_id, "", claimed.body), result, Ending.INVALID))
        self._metrics.ended(Ending.INVALID, claimed.arrived, self.now())

    # Ending.

    def complete(self, delivery: Delivery, status: int, body: bytes) -> None:
        """The message is answered."""
        result = delivery.message.shape.answer(status, body)
        self._end(delivery, result, Ending.COMPLETED)

    def fail(
        self, delivery: Delivery, code: ErrorCode, reason: str, status: int | None = None, body: bytes = b""
    ) -> None:
        """The message has come to nothing, and is told so."""
        result = delivery.message.shape.error(code, reason, status, body)
        self._end(delivery, result, _ENDINGS[code])

    def expire(self, delivery: Delivery, reason: str = "") -> None:
        """Its deadline has passed."""
        told = f"its deadline has passed{': ' if reason else ''}{reason}"
        self.fail(delivery, ErrorCode.DEADLINE_EXCEEDED, told)

    def _end(self, delivery: Delivery, result: bytes | None, ending: Ending | None) -> None:
        self._deliveries.pop(key_of(delivery.claimed), None)
        self.claims.finish(Finished(delivery.claimed, delivery.message.token, result, ending))
        self._metrics.ended(ending or REPEATED, _arrival(delivery), self.now())

    def give_back(self, delivery: Delivery, attempts: int, pause: float = 0.0) -> None:
        """Have it delivered again after `pause` seconds."""
        self._deliveries.pop(key_of(delivery.claimed), None)
        self.claims.give_back(Returned(delivery.claimed, attempts, pause))

    def _stored(self, results: int) -> None:
        self._stored_since_depth += results
        self._changed()

    # What goes on beside that.

    async def hear_cancellations(self) -> None:
        """End what somebody has cancelled, or finished meanwhile; runs until it is cancelled itself."""
        while True:
            await asyncio.sleep(CANCEL_SECONDS)
            under_way = list(self._deliveries.values())
            if not under_way:
                continue
            names = [_named(each.message) for each in under_way]
            known = await self.connection.tried(lambda names=names: self.queue.look_up(names))
            if known is None:
                continue
            for delivery, name in zip(under_way, names, strict=True):
                if delivery.task is not None and (name in known.cancelled or name in known.finished):
                    delivery.is_cancelled = name not in known.finished
                    delivery.task.cancel()

    async def watch_depth(self) -> None:
        """Look how much there is, now and then; runs until it is cancelled."""
        while True:
            await self.look_at_depth()
            await asyncio.sleep(DEPTH_SECONDS)

    async def look_at_depth(self) -> Depth | None:
        """How much there is, None where the queue is away."""
        before = self._stored_since_depth
        depth = await self.connection.tried(self.queue.depth)
        if depth is not None:
            self.depth = depth
            self._stored_since_depth -= before
            self._metrics.depth(depth, self.now())
            if self.is_full != self._was_full:
                self._was_full = self.is_full
                told = "no message is claimed until some are read" if self.is_full else "claiming again"
                logger.warning("queue %s: %d results are unread: %s", self.name, depth.results, told)
            self._changed()
        return depth


def _arrival(delivery: Delivery) -> float | None:
    return delivery.claimed.arrived or delivery.message.created


def _named(message: Message) -> Named:
    return Named(message.id, message.token)
