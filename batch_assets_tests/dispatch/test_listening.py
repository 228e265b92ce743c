"""The worker's own pages: every series is there from the start, and readiness follows the queues."""

import asyncio
import socket
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from batch_assets.dispatch.listening import listening
from batch_assets.dispatch.metrics import ENDS, RETRIES, VERDICTS, Metrics
from batch_assets.errors import ConfigurationError


@dataclass
class Shown:
    """A worker, as far as its pages tell of it."""

    metrics: Metrics = field(default_factory=Metrics)
    is_ready: bool = True
    consumers: list[Any] = field(default_factory=list[Any])


def pages_of(shown: Shown, *paths: str) -> list[tuple[int, str]]:
    async def main() -> list[tuple[int, str]]:
        async with listening("127.0.0.1:0", shown) as address, aiohttp.ClientSession() as session:
            found: list[tuple[int, str]] = []
            for path in paths:
                async with session.get(f"http://{address}{path}") as response:
                    found.append((response.status, await response.text()))
            return found

    return asyncio.run(main())


def test_every_series_is_there_from_the_start() -> None:
    shown = Shown()
    shown.metrics.of_queue("q")
    shown.metrics.of_gate("g")
    shown.metrics.add_pool("p")
    ((status, text),) = pages_of(shown, "/metrics")
    assert status == 200
    samples = {
        (sample.name, *sorted(sample.labels.values()))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    prefix = "batch_assets_dispatch"
    assert {(f"{prefix}_requests_total", *sorted(("q", end))) for end in ENDS} <= samples
    assert {(f"{prefix}_retries_total", *sorted(("q", reason))) for reason in RETRIES} <= samples
    assert {(f"{prefix}_gate_verdicts_total", *sorted(("g", verdict))) for verdict in VERDICTS} <= samples
    for name in ("shed_total", "backlog_messages", "held_messages", "unread_results", "inference_seconds_count",
                 "message_seconds_count", "queue_residence_seconds_count"):  # fmt: skip
        assert (f"{prefix}_{name}", "q") in samples
    assert {(f"{prefix}_{name}", "p") for name in ("in_flight_requests", "window_requests")} <= samples


@pytest.mark.parametrize(
    ("is_ready", "away", "status", "told"),
    [
        (True, [False], 200, "ok"),
        (True, [False, True], 503, "away: q1"),
        (False, [False], 503, "not working"),
    ],
)
def test_ready_is_who_works_and_reaches_all_queues(
    is_ready: bool, away: list[bool], status: int, told: str
) -> None:
    consumers = [
        SimpleNamespace(name=f"q{number}", connection=SimpleNamespace(is_away=is_away))
        for number, is_away in enumerate(away)
    ]
    healthy, ready = pages_of(Shown(is_ready=is_ready, consumers=consumers), "/healthz", "/readyz")
    assert healthy == (200, "ok\n")
    assert ready[0] == status and told in ready[1]


def test_an_address_that_is_taken_is_said() -> None:
    async def main(address: str) -> None:
        async with listening(address, Shown()):
            pass

    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigurationError, match=f"listen {address}"):
            asyncio.run(main(address))
