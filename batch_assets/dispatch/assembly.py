"""The parts of a worker as its settings say: queues, pools and gates. What they do together is in `worker.py`."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from batch_assets.dispatch.calls import Caller
from batch_assets.dispatch.consumer import Consumer
from batch_assets.dispatch.gates.base import Gate
from batch_assets.dispatch.gates.quota import QuotaGate
from batch_assets.dispatch.gates.readings import PrometheusQuery, Saturation, split_url
from batch_assets.dispatch.gates.shares import ConcurrencyGate, ReadingGate, SaturationGate, ShareGate
from batch_assets.dispatch.merging import POLICIES
from batch_assets.dispatch.metrics import Metrics
from batch_assets.dispatch.pool import Pool
from batch_assets.dispatch.queues.base import Queue
from batch_assets.dispatch.queues.urls import OpenDatabase, queue_of
from batch_assets.gateway.client import Client
from batch_assets.gateway.identity import identify
from batch_assets.gateway.window import Window
from batch_assets.settings.dispatch import DispatchSettings, PoolSettings
from batch_assets.settings.gates import (
    ConcurrencyGateSettings,
    ConstantGateSettings,
    ControllerGateSettings,
    GateSettings,
    PrometheusGateSettings,
    QuotaGateSettings,
)


@dataclass(frozen=True)
class _Server:
    """The model server of one pool, as its gates see it."""

    endpoint: str
    window: Window
    changed: Callable[[], object]


@dataclass
class Parts:
    """All parts of one worker, made in its event loop."""

    settings: DispatchSettings
    metrics: Metrics
    pools: list[Pool] = field(default_factory=list[Pool])
    consumers: list[Consumer] = field(default_factory=list[Consumer])
    gates: list[Gate] = field(default_factory=list[Gate])
    clients: list[Client] = field(default_factory=list[Client])
    _counting: dict[int, Gate] = field(default_factory=dict[int, Gate])
    """Gates that count messages, by the numbers of their settings: those of all pools count them together."""

    def add_pool(self, settings: PoolSettings, queues: dict[str, Queue]) -> None:
        """Make one pool with its queues, which are given by their URLs."""
        worker = self.settings
        endpoint = settings.endpoint or worker.endpoint
        assert endpoint is not None, "the settings have seen to it"
        objective = settings.inference_objective or worker.inference_objective
        headers, secret = identify(objective, worker.api_key_env, "api_key_env")
        concurrency = settings.concurrency or worker.concurrency
        fixed = None if concurrency == "auto" else concurrency
        changed = asyncio.Event()
        server = _Server(endpoint, Window(most=worker.max_concurrency, fixed=fixed), changed.set)
        consumers = [
            Consumer(
                queues[queue.url],
                self.metrics,
                changed.set,
                lease_seconds=worker.lease_seconds,
                results_max=worker.results_max,
                gates=self._gates(queues[queue.url].name, queue.gates, server),
                weight=queue.weight,
                tier=queue.tier,
            )
            for queue in worker.queues
            if (queue.pool or worker.pools[0].name) == settings.name
        ]
        self.consumers += consumers
        gates = [
            *self._gates("all", worker.gates, server),
            *self._gates(settings.name, settings.gates, server),
        ]
        caller = Caller(self._client(endpoint, secret), server.window, headers)
        policy = POLICIES[worker.request_merge_policy]
        self.pools.append(Pool(settings.name, caller, consumers, policy, self.metrics, changed, gates))

    def _client(self, base_url: str, secret: str | None = None) -> Client:
        client = Client(base_url, timeout_seconds=self.settings.request_timeout, secret=secret)
        self.clients.append(client)
        return client

    def _gates(self, place: str, listed: Sequence[GateSettings], server: _Server) -> list[Gate]:
        made: list[Gate] = []
        for settings in listed:
            if isinstance(settings, ControllerGateSettings):
                continue  # the window is always there
            name = f"{place}:{settings.type}"
            if isinstance(settings, ConcurrencyGateSettings | QuotaGateSettings):
                if id(settings) not in self._counting:
                    self._counting[id(settings)] = _counting_gate(name, settings)
                    self._add(self._counting[id(settings)])
                made.append(self._counting[id(settings)])
            else:
                gate = self._share_gate(name, settings, server)
                self._add(gate)
                made.append(gate)
        return made

    def _add(self, gate: Gate) -> None:
        self.metrics.of_gate(gate.name).readable.set(1)
        self.gates.append(gate)

    def _share_gate(
        self,
        name: str,
        settings: GateSettings,
        server: _Server,
    ) -> Gate:
        def window() -> int:
            return server.window.size

        if isinstance(settings, ConstantGateSettings):
            return ShareGate(name, settings.share, window)
        if isinstance(settings, PrometheusGateSettings):
            reading = PrometheusQuery(self._client(settings.url), settings.query)
        else:
            assert settings.type == "saturation", settings.type
            base, path = split_url(settings.url or f"{server.endpoint}/metrics")
            reading = Saturation(
                self._client(base),
                path,
                settings.metric,
                settings.labels,
                settings.maximum,
                settings.threshold,
            )
        make = SaturationGate if isinstance(reading, Saturation) else ReadingGate
        every = settings.every_seconds
        return make(name, reading, window, self.metrics, server.changed, every_seconds=every)


def assemble(settings: DispatchSettings, metrics: Metrics, open_database: OpenDatabase) -> Parts:
    """Make all parts. Raises ConfigurationError for what cannot work, before any connection is made."""
    queues = {
        queue.url: queue_of(queue.url, queue.results or settings.results, open_database)
        for queue in settings.queues
    }
    identify(None, settings.api_key_env, "api_key_env")
    parts = Parts(settings, metrics)
    for pool in settings.pools:
        parts.add_pool(pool, queues)
    return parts


def _counting_gate(name: str, settings: ConcurrencyGateSettings | QuotaGateSettings) -> Gate:
    if isinstance(settings, ConcurrencyGateSettings):
        return ConcurrencyGate(name, settings.limit)
    return QuotaGate(name, settings.limit, field=settings.field, window_seconds=settings.window_seconds)
