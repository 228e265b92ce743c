"""Gates that go by what a server says of itself, and are closed while that cannot be read."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import pytest

from batch_assets.dispatch.gates.readings import PrometheusQuery, Saturation, split_url
from batch_assets.dispatch.gates.shares import ReadingGate, Unreadable
from batch_assets.dispatch.metrics import Metrics
from batch_assets.gateway.client import Client
from batch_assets_tests.dispatch.gates.given import INFINITE, message
from batch_assets_tests.http_server import http_server


class Pages:
    """A server's pages, by path; what is not there is a 404."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self.asked: list[str] = []

    def handler(self) -> type[BaseHTTPRequestHandler]:
        pages = self

        class Handler(BaseHTTPRequestHandler):
            """Answers from the pages."""

            def do_GET(self) -> None:
                pages.asked.append(self.path)
                text = pages.found.get(urlsplit(self.path).path)
                body = (text or "").encode("latin-1")
                self.send_response(404 if text is None else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        return Handler


def vllm(usage: float, waiting: int, name: str = "kv_cache_usage_perc") -> str:
    return (
        "# HELP vllm:num_requests_waiting Number of requests waiting to be processed.\n"
        "# TYPE vllm:num_requests_waiting gauge\n"
        f'vllm:num_requests_waiting{{engine="0",model_name="m"}} {waiting}\n'
        f"# HELP vllm:{name} KV-cache usage. 1 means 100 percent usage.\n"
        f"# TYPE vllm:{name} gauge\n"
        f'vllm:{name}{{engine="0",model_name="m"}} {usage}\n'
        f'vllm:{name}{{engine="1",model_name="m"}} 0.0\n'
        "# TYPE vllm:prompt_tokens counter\n"
        'vllm:prompt_tokens_total{engine="0",model_name="m"} 1.2e+07\n'
    )


def asked(pages: Pages, steps: Callable[[Client], Awaitable[None]], prefix: str = "") -> None:
    async def main(url: str) -> None:
        client = Client(url + prefix)
        try:
            await steps(client)
        finally:
            await client.close()

    with http_server(pages.handler()) as url:
        asyncio.run(main(url))


@pytest.mark.parametrize(
    ("text", "free"),
    [
        (vllm(0.0, 0), 1.0),
        (vllm(0.4, 0), 0.5),
        (vllm(0.4, 0, "gpu_cache_usage_perc"), 0.5),
        (vllm(0.8, 0), 0.0),
        (vllm(1.0, 0), 0.0),
        (vllm(0.0, 3), 0.0),
        ("sglang:token_usage 0.2\nsglang:num_queue_reqs 0\n", 0.75),
        ("sglang:num_queue_reqs 2.0\n", 0.0),
        ("vllm:num_requests_waiting 0\n", 1.0),
        ("vllm:kv_cache_usage_perc NaN\nvllm:num_requests_waiting 0\n", 1.0),
    ],
)
def test_how_much_of_a_server_is_free(text: str, free: float) -> None:
    pages = Pages()
    pages.found["/metrics"] = text

    async def steps(client: Client) -> None:
        assert await Saturation(client, "/metrics")() == pytest.approx(free)

    asked(pages, steps)


def test_a_metric_of_ones_own_is_read() -> None:
    pages = Pages()
    pages.found["/m"] = 'load{pod="a"} 30\nload{pod="b"} 60\nother 1\n'

    async def steps(client: Client) -> None:
        def reading(**labels: str) -> Saturation:
            return Saturation(client, "/m", "load", labels, maximum=100, threshold=1.0)

        assert await reading()() == pytest.approx(0.4), "the fullest counts"
        assert await reading(pod="a")() == pytest.approx(0.7)
        with pytest.raises(Unreadable, match="load"):
            await reading(pod="c")()

    asked(pages, steps)


@pytest.mark.parametrize(
    "text", [None, "", "other 1\n", "<html>", "a{b 1\n", "\xff", "vllm:kv_cache_usage_perc much\n"]
)
def test_metrics_that_say_nothing_are_no_reading(text: str | None) -> None:
    pages = Pages()
    if text is not None:
        pages.found["/metrics"] = text

    async def steps(client: Client) -> None:
        with pytest.raises(Unreadable):
            await Saturation(client, "/metrics")()

    asked(pages, steps)


def answered(kind: str, result: object) -> str:
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (answered("vector", [{"metric": {}, "value": [1_700_000_000, "0.25"]}]), 0.25),
        (answered("scalar", [1_700_000_000, "0.75"]), 0.75),
        (answered("vector", [{"metric": {}, "value": [1, "-3"]}]), -3.0),
    ],
)
def test_a_query_returns_a_share(text: str, value: float) -> None:
    pages = Pages()
    pages.found["/prefix/api/v1/query"] = text
    query = 'max(load{pod=~"a.*"}) / 10 > bool 1 & "ä"'

    async def steps(client: Client) -> None:
        assert await PrometheusQuery(client, query)() == value

    asked(pages, steps, "/prefix")
    assert [parse_qs(urlsplit(path).query)["query"] for path in pages.asked] == [[query]]


@pytest.mark.parametrize(
    "text",
    [
        None, "", "[]", "{}", "<html>", "\xff", "[" * 100_000, answered("vector", []),
        answered("vector", [{"value": [1, "NaN"]}]), answered("scalar", [1, "+Inf"]),
        answered("scalar", [1, "a"]),
        answered("matrix", [{"values": [[1, "0.5"]]}]), answered("string", [1, "a"]), '{"status":"error"}',
    ],
    ids=lambda text: repr(text)[:40],
)  # fmt: skip
def test_a_query_without_a_value_is_no_reading(text: str | None) -> None:
    pages = Pages()
    if text is not None:
        pages.found["/api/v1/query"] = text

    async def steps(client: Client) -> None:
        with pytest.raises(Unreadable):
            await PrometheusQuery(client, "up")()

    asked(pages, steps)


def test_a_gate_is_closed_while_its_reading_cannot_be_had(caplog: pytest.LogCaptureFixture) -> None:
    pages, told, metrics = Pages(), list[None](), Metrics()

    def counted(verdict: str) -> float:
        labels = {"gate": "g", "verdict": verdict}
        return metrics.registry.get_sample_value("batch_assets_dispatch_gate_verdicts_total", labels) or 0.0

    async def steps(client: Client) -> None:
        reading = Saturation(client, "/metrics")
        gate = ReadingGate("g", reading, lambda: 10, metrics, lambda: told.append(None), every_seconds=1)
        assert gate.room() == 0, "closed until something was read"
        pages.found["/metrics"] = vllm(0.4, 0)
        await gate.look()
        assert gate.room() == 5
        gate.admit(message())
        assert gate.room() == 4
        del pages.found["/metrics"]
        await gate.look()
        await gate.look()
        assert gate.room() == 0
        pages.found["/metrics"] = vllm(0.0, 0)
        await gate.look()
        assert gate.room() == INFINITE
        pages.found["/metrics"] = vllm(0.9, 0)
        await gate.look()
        assert gate.room() == 0

    with caplog.at_level(logging.WARNING):
        asked(pages, steps)
    assert len(told) == 5, "whoever waits for room looks again"
    assert [counted(verdict) for verdict in ("open", "closed", "unreadable")] == [2, 1, 2]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"], "closed, and read again"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "prometheus:9090", "http://a b"])
def test_a_server_that_cannot_be_reached_closes_the_gate(url: str) -> None:
    async def main() -> None:
        client = Client(url)
        gate = ReadingGate(
            "g", PrometheusQuery(client, "up"), lambda: 10, Metrics(), lambda: None, every_seconds=1
        )
        await gate.look()
        assert gate.room() == 0
        await client.close()

    asyncio.run(main())


def test_shares_outside_of_0_and_1_are_none_and_all() -> None:
    async def main() -> None:
        for value, room in ((-2.0, 0), (7.0, INFINITE)):

            async def read(value: float = value) -> float:
                return value

            gate = ReadingGate("g", read, lambda: 10, Metrics(), lambda: None, every_seconds=1)
            await gate.look()
            assert gate.room() == room

    asyncio.run(main())


def test_a_url_is_split_where_its_path_begins() -> None:
    assert split_url("http://h:8000/a/metrics?x=1") == ("http://h:8000", "/a/metrics?x=1")
