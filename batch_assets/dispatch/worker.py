"""The worker's life, from its start to its end; what it is made of is in `assembly.py`."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from batch_assets.dispatch.assembly import assemble
from batch_assets.dispatch.listening import listening
from batch_assets.dispatch.metrics import Metrics
from batch_assets.dispatch.queues.base import QueueAway
from batch_assets.dispatch.queues.urls import OpenDatabase
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
from batch_assets.settings.dispatch import DispatchSettings

logger = plain_logger(__name__)
STORE_SECONDS = 10.0
"""So long the ends of messages may take to be stored when the worker is to end."""
EMPTY_SECONDS = 0.2


class Worker:
    """Made and run in one event loop. Raises ConfigurationError for what cannot work."""

    def __init__(self, settings: DispatchSettings, open_database: OpenDatabase) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.is_ready = False
        self._stop = asyncio.Event()
        parts = assemble(settings, self.metrics, open_database)
        self.pools, self.consumers = parts.pools, parts.consumers
        self._gates, self._clients = parts.gates, parts.clients

    def stop(self) -> None:
        """Begin the end: no new claims, what is in flight may end within drain_timeout."""
        self._stop.set()

    async def run(self, *, until_empty: bool = False, started: Callable[[], object] = lambda: None) -> bool:
        """Work until `stop` is called, or all queues are empty; whether all that ended was stored."""
        async with listening(self.settings.listen, self):
            try:
                await self._open()
                started()
                return await self._work(until_empty)
            finally:
                for client in self._clients:
                    await client.close()
                for consumer in self.consumers:
                    await consumer.queue.close()

    async def _open(self) -> None:
        for consumer in self.consumers:
            pause = FIRST_PAUSE_SECONDS
            while not self._stop.is_set():
                try:
                    await consumer.queue.open()
                    break
                except QueueAway as error:
                    logger.warning("queue %s is away: %s; waiting for it", consumer.name, error)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._stop.wait(), pause)
                    pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _work(self, until_empty: bool) -> bool:
        if self._stop.is_set():
            return True
        self.is_ready = True
        beside = [asyncio.create_task(gate.watch()) for gate in self._gates]
        for consumer in self.consumers:
            steps = (
                consumer.claims.store_ends(),
                consumer.claims.hold(),
                consumer.hear_cancellations(),
                consumer.watch_depth(),
            )
            beside += [asyncio.create_task(step) for step in steps]
        runs = [asyncio.create_task(pool.run()) for pool in self.pools]
        try:
            ends: list[asyncio.Task[Any]] = [asyncio.create_task(self._stop.wait())]
            if until_empty:
                ends.append(asyncio.create_task(self._until_empty()))
            done, _ = await asyncio.wait([*ends, *runs, *beside], return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
            for task in done:
                task.result()  # a fault of ours is not hidden
            await asyncio.gather(*(pool.stop(self.settings.drain_timeout) for pool in self.pools))
            return await self._all_stored()
        finally:
            self.is_ready = False
            for task in (*beside, *runs):
                task.cancel()
            await asyncio.gather(*beside, *runs, return_exceptions=True)

    async def _all_stored(self) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STORE_SECONDS):
                while any(consumer.claims.unstored for consumer in self.consumers):
                    await asyncio.sleep(0.02)
        for consumer in self.consumers:
            if consumer.claims.unstored:
                logger.warning(
                    "queue %s: %d ends of messages could not be stored; they are delivered again in %g s",
                    consumer.name, consumer.claims.unstored, self.settings.lease_seconds,
                )  # fmt: skip
        return not any(consumer.claims.unstored for consumer in self.consumers)

    async def _until_empty(self) -> None:
        """Twice in a row, for some queues' numbers lag behind."""
        empty = 0
        while empty < 2:
            await asyncio.sleep(EMPTY_SECONDS)
            if any(pool.in_hand for pool in self.pools) or any(
                consumer.claims.unstored for consumer in self.consumers
            ):
                empty = 0
                continue
            depths = [await consumer.look_at_depth() for consumer in self.consumers]
            is_empty = all(depth is not None and depth.waiting + depth.claimed == 0 for depth in depths)
            empty = empty + 1 if is_empty else 0
