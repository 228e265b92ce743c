"""The worker as a whole: its queues, pools and gates from the settings, and its life from start to end."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any

from batch_assets.dispatch.calls import OBJECTIVE, Caller
from batch_assets.dispatch.consumer import Consumer
from batch_assets.dispatch.gates.base import Gate
from batch_assets.dispatch.gates.quota import QuotaGate
from batch_assets.dispatch.gates.readings import PrometheusQuery, Saturation, split_url
from batch_assets.dispatch.gates.shares import ConcurrencyGate, ReadingGate, ShareGate
from batch_assets.dispatch.listening import listening
from batch_assets.dispatch.merging import POLICIES
from batch_assets.dispatch.metrics import Metrics
from batch_assets.dispatch.pool import Pool
from batch_assets.dispatch.queues.base import QueueAway
from batch_assets.dispatch.queues.urls import OpenDatabase, queue_of
from batch_assets.errors import ConfigurationError
from batch_assets.gateway.client import Client
from batch_assets.gateway.window import Window
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
from batch_assets.settings.dispatch import DispatchSettings, PoolSettings
from batch_assets.settings.gates import (
    ConcurrencyGateSettings,
    ConstantGateSettings,
    ControllerGateSettings,
    GateSettings,
    PrometheusGateSettings,
    QuotaGateSettings,
)

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
        self._changed: dict[str, asyncio.Event] = {pool.name: asyncio.Event() for pool in settings.pools}
        self._gates: list[Gate] = []
        self._clients: list[Client] = []
        self.consumers: list[Consumer] = []
        self.pools = [self._pool(pool, open_database) for pool in settings.pools]

    def _pool(self, settings: PoolSettings, open_database: OpenDatabase) -> Pool:
        worker = self.settings
        endpoint = settings.endpoint or worker.endpoint
        assert endpoint is not None
        client = self._client(endpoint)
        concurrency = settings.concurrency or worker.concurrency
        window = Window(most=worker.max_concurrency, fixed=None if concurrency == "auto" else concurrency)
        headers: dict[str, str] = {}
        if objective := settings.inference_objective or worker.inference_objective:
            headers[OBJECTIVE] = objective
        if worker.api_key_env is not None:
            headers["Authorization"] = f"Bearer {_key(worker.api_key_env)}"
        changed = self._changed[settings.name]

        def gates(kind: str, listed: Sequence[GateSettings]) -> list[Gate]:
            named = ((f"{kind}:{gate.type}", gate) for gate in listed)
            made = [self._gate(name, gate, window, endpoint, changed) for name, gate in named]
            return [gate for gate in made if gate is not None]

        first = worker.pools[0].name
        consumers: list[Consumer] = []
        for queue in worker.queues:
            if (queue.pool or first) == settings.name:
                found = queue_of(queue.url, queue.results or worker.results, open_database)
                consumers.append(
                    Consumer(
                        found,
                        self.metrics,
                        changed.set,
                        lease_seconds=worker.lease_seconds,
                        results_max=worker.results_max,
                        gates=gates(found.name, queue.gates),
                        weight=queue.weight,
                        tier=queue.tier,
                    )
                )
        self.consumers += consumers
        return Pool(
            settings.name,
            Caller(client, window, headers),
            consumers,
            POLICIES[worker.request_merge_policy],
            self.metrics,
            changed,
            [*gates(settings.name, worker.gates), *gates(settings.name, settings.gates)],
        )

    def _client(self, base_url: str) -> Client:
        client = Client(base_url, timeout_seconds=self.settings.request_timeout)
        self._clients.append(client)
        return client

    def _gate(
        self, name: str, settings: GateSettings, window: Window, endpoint: str, changed: asyncio.Event
    ) -> Gate | None:
        gate: Gate
        if isinstance(settings, ControllerGateSettings):
            return None  # the window is always there
        if isinstance(settings, ConstantGateSettings):
            gate = ShareGate(name, settings.share, lambda: window.size)
        elif isinstance(settings, ConcurrencyGateSettings):
            gate = ConcurrencyGate(name, settings.limit)
        elif isinstance(settings, QuotaGateSettings):
            gate = QuotaGate(
                name, settings.limit, field=settings.field, window_seconds=settings.window_seconds
            )
        else:
            if isinstance(settings, PrometheusGateSettings):
                reading = PrometheusQuery(self._client(settings.url), settings.query)
            else:
                base, path = split_url(settings.url or f"{endpoint}/metrics")
                reading = Saturation(
                    self._client(base),
                    path,
                    settings.metric,
                    settings.labels,
                    settings.maximum,
                    settings.threshold,
                )
            gate = ReadingGate(
                name,
                reading,
                lambda: window.size,
                self.metrics,
                changed.set,
                every_seconds=settings.every_seconds,
            )
        self.metrics.of_gate(name).readable.set(1)
        self._gates.append(gate)
        return gate

    @property
    def in_flight(self) -> int:
        return sum(pool.in_flight for pool in self.pools)

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


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigurationError(
            f"api_key_env: {variable} is not set, or is no key; put the server's API key there"
        )
    return key
