"""What gates let pass: shares, numbers at a time, quotas of tenants, and what is read from servers."""

import asyncio
import heapq
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import pytest

from batch_assets.dispatch.gates.base import Gate, Held, admit_all
from batch_assets.dispatch.gates.quota import MOST_SECONDS, QuotaGate
from batch_assets.dispatch.gates.readings import PrometheusQuery, Saturation, split_url
from batch_assets.dispatch.gates.shares import ConcurrencyGate, ReadingGate, ShareGate, Unreadable
from batch_assets.dispatch.messages import Message, parse
from batch_assets.dispatch.metrics import Metrics
from batch_assets.gateway.client import Client
from batch_assets_tests.http_server import http_server

INFINITE = float("inf")


class Clock:
    """Time that passes when a test says so."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def message(tenant: object = "u", name: str = "a") -> Message:
    metadata = {} if tenant is None else {"userid": tenant}
    return parse(json.dumps({"id": name, "payload": {"prompt": "a"}, "metadata": metadata}).encode())


# Shares and numbers.


@pytest.mark.parametrize(
    ("share", "window", "room"),
    [(0, 100, 0), (0.25, 100, 25), (0.25, 101, 26), (0.001, 8, 1), (1, 8, INFINITE), (0.5, 1, 1)],
)
def test_a_share_of_the_window_passes(share: float, window: int, room: float) -> None:
    assert ShareGate("g", share, lambda: window).room() == room


def test_a_share_follows_the_window_and_what_is_under_way() -> None:
    window = 10
    gate = ShareGate("g", 0.5, lambda: window)
    under_way = [message() for _ in range(4)]
    for each in under_way:
        assert gate.admit(each) is None
    assert gate.room() == 1
    window = 4
    assert gate.room() == 0, "less than is under way: nothing more"
    window = 100
    assert gate.room() == 46
    for each in under_way:
        gate.release(each)
    assert gate.room() == 50


def test_so_many_at_a_time() -> None:
    gate = ConcurrencyGate("g", 2)
    first, second = message(), message()
    assert gate.room() == 2
    gate.admit(first)
    gate.admit(second)
    assert gate.room() == 0
    gate.release(first)
    assert gate.room() == 1


def test_what_one_gate_holds_back_occupies_no_other() -> None:
    number, first, second = ConcurrencyGate("n", 5), QuotaGate("q", 1), QuotaGate("r", 1)
    gates: Sequence[Gate] = [number, first, second]
    passed, held, other = message("u"), message("u"), message("v")
    assert admit_all(gates, passed) is None
    found = admit_all([number, second, first], held)
    assert found is not None and found[0] is second
    assert isinstance(found[1], Held) and found[1].seconds > 0
    assert number.room() == 4
    assert admit_all(gates, other) is None
    for gate in gates:
        gate.release(passed)
    assert admit_all(gates, held) is None
    assert number.room() == 3


def test_the_last_of_several_gates_frees_those_before_it() -> None:
    number, quota = ConcurrencyGate("n", 5), QuotaGate("q", 1)
    assert admit_all([quota], message("u")) is None
    assert admit_all([number, quota], message("u")) is not None
    assert number.room() == 5


# Quotas.


def test_a_tenant_over_its_quota_pauses_and_others_do_not() -> None:
    gate = QuotaGate("q", 2, clock=Clock())
    under_way = [message("u"), message("u")]
    assert [gate.admit(each) for each in under_way] == [None, None]
    held = gate.admit(message("u"))
    assert held is not None
    assert 0 < held.seconds <= MOST_SECONDS
    assert "u has 2 messages under way" in held.reason
    assert gate.admit(message("v")) is None
    gate.release(under_way[0])
    assert gate.admit(message("u")) is None
    assert gate.room() == INFINITE, "it holds back some, never all"


def test_what_was_held_back_frees_nothing() -> None:
    gate = QuotaGate("q", 1, clock=Clock())
    passed, held = message("u"), message("u")
    gate.admit(passed)
    assert gate.admit(held) is not None
    gate.release(held)
    assert gate.admit(held) is not None
    gate.release(passed)
    gate.release(passed)
    assert gate.admit(held) is None
    assert gate.admit(message("u")) is not None


def test_a_message_without_a_tenant_belongs_to_none() -> None:
    gate = QuotaGate("q", 1, clock=Clock())
    assert [gate.admit(message(None)) for _ in range(5)] == [None] * 5


def test_equal_ids_of_tenants_are_told_apart_by_their_messages() -> None:
    """Ids may occur twice: the end of one frees no other one's place."""
    gate = QuotaGate("q", 2, clock=Clock())
    one, same = message("u", "x"), message("u", "x")
    gate.admit(one)
    gate.admit(same)
    gate.release(one)
    gate.release(one)
    assert gate.admit(message("u")) is None
    assert gate.admit(message("u")) is not None


def test_tenants_are_told_apart_by_any_field() -> None:
    gate = QuotaGate("q", 1, field="metadata.team", clock=Clock())
    of_team = parse(b'{"id":"a","payload":{"prompt":"a"},"metadata":{"team":7,"userid":"u"}}')
    assert gate.admit(of_team) is None
    assert gate.admit(of_team) is not None
    assert gate.admit(message("u")) is None, "it has no team"


@pytest.mark.parametrize(("limit", "window_seconds"), [(10, 60.0), (3, 1.0), (1, 10.0), (0.5, 60.0)])
def test_a_rate_is_never_passed(limit: float, window_seconds: float) -> None:
    """Beyond the first `limit` at once no more come than refill."""
    clock = Clock()
    gate = QuotaGate("q", limit, window_seconds=window_seconds, clock=clock)
    start, rate, passed = clock.now, limit / window_seconds, list[float]()
    while clock.now < start + 10 * window_seconds:
        if gate.admit(message()) is None:
            passed.append(clock.now)
        clock.now += window_seconds / 100
    for number, first in enumerate(passed):
        for count, last in enumerate(passed[number:], 1):
            assert count <= limit + (last - first) * rate + 1
    assert len(passed) >= int(10 * limit), "and no fewer than were granted"


def test_a_pause_of_a_rate_ends_when_there_is_room() -> None:
    clock = Clock()
    gate = QuotaGate("q", 6, window_seconds=60, clock=clock)
    assert [gate.admit(message()) for _ in range(6)] == [None] * 6
    waiting = [gate.admit(message()) for _ in range(3)]
    pauses = [held.seconds for held in waiting if held is not None]
    assert pauses == pytest.approx([10, 20, 30])
    assert gate.admit(message("v")) is None, "others are none of its business"
    for pause in pauses:
        clock.now = 1_000 + pause
        assert gate.admit(message()) is None


def test_nobody_is_sent_away_for_longer_than_a_minute() -> None:
    clock = Clock()
    gates = [QuotaGate("q", 1, clock=clock), QuotaGate("q", 1, window_seconds=86_400, clock=clock)]
    for gate in gates:
        gate.admit(message())
        pauses = [gate.admit(message()) for _ in range(1_000)]
        assert all(held is not None and 0 < held.seconds <= MOST_SECONDS for held in pauses)


class Simulation:
    """A worker with `slots` calls in flight, of `seconds` each, behind one quota, in simulated time."""

    def __init__(self, gate: QuotaGate, clock: Clock, *, slots: int, seconds: float) -> None:
        self._gate, self._clock, self._slots, self._seconds = gate, clock, slots, seconds
        self.held: Counter[str] = Counter()
        self.most_under_way: Counter[str] = Counter()
        self.started: defaultdict[str, list[float]] = defaultdict(list)
        self.ended: dict[str, float] = {}

    def run(self, counts: dict[str, int]) -> None:
        """The tenants' messages arrive at once, one tenant's behind the other's."""
        names = [tenant for tenant, count in counts.items() for _ in range(count)]
        waiting = [(self._clock.now, number, message(tenant)) for number, tenant in enumerate(names)]
        in_flight: list[tuple[float, int, Message]] = []
        under_way: Counter[str] = Counter()
        while waiting or in_flight:
            while waiting and waiting[0][0] <= self._clock.now and len(in_flight) < self._slots:
                _, number, each = heapq.heappop(waiting)
                tenant, held = each.metadata["userid"], self._gate.admit(each)
                if held is not None:
                    self.held[tenant] += 1
                    heapq.heappush(waiting, (self._clock.now + held.seconds, number, each))
                    continue
                under_way[tenant] += 1
                self.most_under_way[tenant] = max(self.most_under_way[tenant], under_way[tenant])
                self.started[tenant].append(self._clock.now)
                heapq.heappush(in_flight, (self._clock.now + self._seconds, number, each))
            times = [in_flight[0][0]] if in_flight else []
            if waiting and len(in_flight) < self._slots:
                times.append(waiting[0][0])
            self._clock.now = max(self._clock.now, min(times))
            while in_flight and in_flight[0][0] <= self._clock.now:
                _, _, each = heapq.heappop(in_flight)
                under_way[each.metadata["userid"]] -= 1
                self._gate.release(each)
                self.ended[each.metadata["userid"]] = self._clock.now


COUNTS = {"large": 4_000, "larger": 3_000} | {f"small {number}": 100 for number in range(8)}


@pytest.mark.parametrize("seconds", [0.5, 2.0, 8.0])
def test_of_ten_tenants_none_starves_and_none_is_asked_for_ever(seconds: float) -> None:
    clock = Clock()
    simulation = Simulation(QuotaGate("q", 4, clock=clock), clock, slots=32, seconds=seconds)
    simulation.run(COUNTS)
    assert {tenant: len(starts) for tenant, starts in simulation.started.items()} == COUNTS
    assert max(simulation.most_under_way.values()) <= 4
    for tenant, count in COUNTS.items():
        took, least = simulation.ended[tenant] - 1_000, count * seconds / 4
        # The large ones' messages stand before the small ones': they must not hold them up.
        assert took <= 2 * least + 2 * MOST_SECONDS, tenant
        assert simulation.held[tenant] <= count * (3 + took / MOST_SECONDS), tenant


def test_of_ten_tenants_with_a_rate_none_starves_and_none_is_asked_for_ever() -> None:
    clock = Clock()
    simulation = Simulation(QuotaGate("q", 120, window_seconds=60, clock=clock), clock, slots=32, seconds=0.1)
    simulation.run(COUNTS)
    for tenant, count in COUNTS.items():
        starts = simulation.started[tenant]
        assert len(starts) == count
        for number, start in enumerate(starts):
            assert number + 1 <= 120 + 2 * (start - starts[0]) + 1e-3, (
                "never more than the limit and what refilled"
            )
        took, least = starts[-1] - 1_000, max(0, count - 120) / 2
        assert took <= 2 * least + 2 * MOST_SECONDS, tenant
        assert simulation.held[tenant] <= count * (3 + took / MOST_SECONDS), tenant


# Readings.


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
    assert [counted(verdict) for verdict in ("pass", "closed", "unreadable")] == [2, 1, 2]
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
