"""Messages of one or more queues through one server: taken as there is room, sent, answered or given back.

What a call's end means is in `calls.py`, how messages are taken and their ends stored in `consumer.py`.
"""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Sequence

from batch_assets.dispatch.availability import Availability
from batch_assets.dispatch.calls import CallEnd, Caller, End
from batch_assets.dispatch.claims import ClaimLapsed
from batch_assets.dispatch.consumer import Consumer, Delivery
from batch_assets.dispatch.gates.base import Gate, admit_all, room_of
from batch_assets.dispatch.merging import Policy
from batch_assets.dispatch.metrics import Metrics
from batch_assets.dispatch.results import ErrorCode
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import MESSAGE_LONGEST_PAUSE_SECONDS, message_pause

logger = plain_logger(__name__)
EXPIRY_SECONDS = 1.0
"""While nothing may be sent, so often is looked for messages whose deadline has passed."""
LOOK_SECONDS = 0.5
_RETRIES = {End.REFUSED: "refused", End.BROKEN: "broken", End.NOT_REACHED: "not_reached"}


class Pool:
    """The messages of `consumers` to the server of `caller`, through `gates`."""

    def __init__(
        self,
        name: str,
        caller: Caller,
        consumers: Sequence[Consumer],
        policy: Policy,
        metrics: Metrics,
        changed: asyncio.Event,
        gates: Sequence[Gate] = (),
    ) -> None:
        self.name = name
        self.in_flight = self.answered = 0
        self.caller = caller
        self._consumers = consumers
        self._gates = gates
        self._policy = policy
        self._of_queue = {consumer: metrics.of_queue(consumer.name) for consumer in consumers}
        self._verdicts = {
            gate: metrics.of_gate(gate.name) for each in consumers for gate in (*gates, *each.gates)
        }
        self._changed = changed
        self._in_hand: set[Delivery] = set()
        self._availability = Availability()
        self._stopping = False
        self._takes_no_more = asyncio.Event()
        metrics.add_pool(name)
        metrics.window.labels(name).set_function(lambda: caller.window.size)
        metrics.in_flight.labels(name).set_function(lambda: self.in_flight)

    @property
    def gates(self) -> list[Gate]:
        """The gates before this pool and before its queues, each once."""
        return list(self._verdicts)

    @property
    def in_hand(self) -> int:
        """Messages that are held and have not ended."""
        return len(self._in_hand)

    async def run(self) -> None:
        """Take messages until `stop` is called."""
        try:
            await self._run()
        finally:
            self._takes_no_more.set()

    async def _run(self) -> None:
        expired_at = time.monotonic()
        while not self._stopping:
            self._changed.clear()
            room = self._room()
            consumers = [each for each in self._consumers if room >= 1 and each.may_claim()]
            if consumers:
                await self._take(consumers, int(min(room, 1_000)))
                expired_at = time.monotonic()
                continue
            if time.monotonic() - expired_at >= EXPIRY_SECONDS:
                expired_at = time.monotonic()
                await self._end_expired()
            await self._wait_for_change()

    async def _end_expired(self) -> None:
        """Of queues from which nothing is taken though there may be something: for gates, the server, a long pause."""
        await asyncio.gather(
            *(
                consumer.end_expired()
                for consumer in self._consumers
                if consumer.connection.wait <= 0 and not consumer.is_full
            )
        )

    def _room(self) -> float:
        window = self.caller.window
        if window.pause:
            return 0
        # As many again as may be in flight: the next ones are there as soon as there is room for them. A queue that
        # stores slowly holds the worker up: what is answered and not stored is called again after a kill.
        unstored = sum(consumer.claims.unstored for consumer in self._consumers)
        room = 2 * window.size - len(self._in_hand) - max(0, unstored - window.size)
        return min(room, room_of(self._gates), self._availability.room(len(self._in_hand)))

    async def _wait_for_change(self) -> None:
        waits = [each.connection.wait for each in self._consumers if each.connection.wait > 0]
        try:
            async with asyncio.timeout(min([LOOK_SECONDS, *waits])):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _take(self, consumers: Sequence[Consumer], room: int) -> None:
        shares = [(each, int(min(count, each.room()))) for each, count in self._policy(consumers, room)]
        taken = await asyncio.gather(*(consumer.claim(count) for consumer, count in shares if count >= 1))
        for delivery in itertools.chain.from_iterable(taken):
            if self._stopping:
                delivery.consumer.give_back(delivery, delivery.claimed.attempts)
            else:
                self._begin(delivery)

    def _gates_of(self, delivery: Delivery) -> Sequence[Gate]:
        return (*self._gates, *delivery.consumer.gates)

    def _begin(self, delivery: Delivery) -> None:
        gates = self._gates_of(delivery)
        refused = admit_all(gates, delivery.message)
        if refused is not None:
            gate, held = refused
            self._verdicts[gate].held.inc()
            left = delivery.left
            pause = held.seconds if left is None else min(held.seconds, max(left, 0.001))
            delivery.consumer.give_back(delivery, delivery.claimed.attempts, pause)
            return
        for gate in gates:
            self._verdicts[gate].passed.inc()
        self._in_hand.add(delivery)
        delivery.task = asyncio.create_task(self._deal_with(delivery))

    async def _deal_with(self, delivery: Delivery) -> None:
        consumer = delivery.consumer
        deadline = asyncio.timeout(delivery.left)
        try:
            async with deadline:
                end = await self.caller.call(delivery.message, lambda: self._sent(delivery))
                self._landed(delivery)
                self._end(delivery, end)
        except ClaimLapsed:
            # This process, or the queue, has stood still: no second call is made beside that of another worker.
            consumer.give_back(delivery, delivery.claimed.attempts)
        except TimeoutError:
            if not deadline.expired():
                raise
            consumer.expire(delivery, "while its call was in flight" if delivery.in_flight else "")
        except asyncio.CancelledError:
            if delivery.is_cancelled:
                sent = (
                    "its call was in flight and was broken off"
                    if delivery.in_flight
                    else "before it was sent"
                )
                consumer.fail(delivery, ErrorCode.CANCELLED, f"cancelled: {sent}")
            else:
                consumer.give_back(delivery, delivery.claimed.attempts)
        except Exception:
            # A fault of ours: the message is not lost, and does not end the worker.
            logger.exception("pool %s: message %s is given back", self.name, delivery.message.id)
            consumer.give_back(delivery, delivery.claimed.attempts + 1, pause=60.0)
        finally:
            self._landed(delivery)
            self._in_hand.discard(delivery)
            for gate in self._gates_of(delivery):
                gate.release(delivery.message)
            self._changed.set()

    def _sent(self, delivery: Delivery) -> None:
        if delivery.consumer.claims.has_lapsed(delivery.claimed):
            raise ClaimLapsed
        delivery.in_flight = True
        delivery.sent_at = time.monotonic()
        self.in_flight += 1

    def _landed(self, delivery: Delivery) -> None:
        if delivery.in_flight:
            delivery.in_flight = False
            self.in_flight -= 1

    def _end(self, delivery: Delivery, end: CallEnd) -> None:
        consumer, metrics = delivery.consumer, self._of_queue[delivery.consumer]
        if end.end in (End.ANSWERED, End.FAILED) and self._availability.answered():
            logger.warning("pool %s: the server answers again", self.name)
        if end.end is End.ANSWERED:
            self.answered += 1
            metrics.called(time.monotonic() - delivery.sent_at)
            consumer.complete(delivery, end.status or 200, end.body)
        elif end.end is End.FAILED:
            consumer.fail(delivery, ErrorCode.INFERENCE_ERROR, end.reason, end.status, end.body)
        elif end.end is End.INVALID:
            consumer.fail(delivery, ErrorCode.INVALID_REQUEST, end.reason)
        else:
            metrics.retried(_RETRIES[end.end])
            self._try_again(delivery, end)

    def _try_again(self, delivery: Delivery, end: CallEnd) -> None:
        consumer, attempts = delivery.consumer, delivery.claimed.attempts
        if end.end is not End.REFUSED:
            reached = end.end is not End.NOT_REACHED
            if self._availability.failed(self.in_flight + 1, reached=reached):
                logger.warning(
                    "pool %s: %s; a message at a time asks whether it is back", self.name, end.reason
                )
        if end.end is End.NOT_REACHED:
            # Nobody has heard of it: it keeps its place, and costs nothing.
            consumer.give_back(delivery, attempts)
            return
        pause = message_pause(attempts + 1, end.pause, delivery.left, random.random())
        if pause is None and end.end is End.REFUSED:
            pause = MESSAGE_LONGEST_PAUSE_SECONDS  # it is no fault of the message's that there is no room
        if pause is None:
            consumer.fail(
                delivery, ErrorCode.INFERENCE_ERROR,
                f"{end.reason}, after {attempts + 1} tries", end.status, end.body,
            )  # fmt: skip
        else:
            consumer.give_back(delivery, attempts + 1, pause)

    async def stop(self, drain_seconds: float) -> None:
        """Take nothing more; give back what is not in flight, let the rest end for so long, then give it back too."""
        self._stopping = True
        self._changed.set()
        ends_at = time.monotonic() + drain_seconds
        for delivery in list(self._in_hand):
            if not delivery.in_flight and delivery.task is not None:
                delivery.task.cancel()
        with contextlib.suppress(TimeoutError):  # of a claim under way: its messages are given back
            await asyncio.wait_for(self._takes_no_more.wait(), drain_seconds)
        tasks = [delivery.task for delivery in self._in_hand if delivery.task is not None]
        if tasks:
            _, unfinished = await asyncio.wait(tasks, timeout=max(0.0, ends_at - time.monotonic()))
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
