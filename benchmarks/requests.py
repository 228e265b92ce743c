"""Single requests: how many are accepted a second, how soon a result is there, how long one takes to be found.

The peer of accepting is a bare FastAPI handler with one committed insert for each request, on the same SQLite settings;
both are processes of their own, asked by the same client. The other figures need no model: what is measured comes on
top of it.

    python -m benchmarks.requests [--quick | --smallest]
"""

import asyncio
import contextlib
import gc
import multiprocessing
import secrets
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import dagster as dg
import numpy as np
import orjson
import sqlalchemy as sa

from batch_assets.components.declared import Declared
from batch_assets.control.request_worker import RequestWorker
from batch_assets.orchestration.driver import Driver
from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.results import Results
from batch_assets.requests.store import RequestStore
from batch_assets.settings.pipeline import parse_pipeline
from batch_assets_tests.control.builders import open_ledger
from batch_assets_tests.fakes import FakeHost
from batch_assets_tests.requests.builders import (
    compute,
    make_request,
    make_settings,
    open_asks,
    open_requests,
    send,
)
from benchmarks.arguments import Size, make_parser
from benchmarks.measure import Comparison, Targets, in_new_process, report

CONNECTIONS = 64
GROWTH, SECONDS_TO_RESULT, BESIDE_RUN = 2.0, 2.0, 1.2
COMMITS = (("this disk", 0.0, 1.0), ("5 ms a commit", 0.005, 5.0))
"""A commit waits for the disk: here, and with as long added, for both, as a disk behind a network takes."""
TOKEN = "benchmark" * 4
RECORD = orjson.dumps({"text": "how do I read a file, line by line, and close it in the end? " * 3})
FILL = """INSERT INTO requests_accepted (id, pipeline, tenant, arrived, size, window_name, line)
    WITH RECURSIVE counted(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM counted WHERE n + 1 < :rows)
    SELECT lower(hex(randomblob(16))), 'asks', 'operator', n, 100, printf('w%08d', n / 1000), n % 1000 FROM counted"""


@dataclass(frozen=True)
class Counts:
    seconds: float
    rounds: int
    few: int
    many: int
    lookups: int
    posts: int
    window: int


COUNTS = {
    Size.FULL: Counts(
        seconds=10, rounds=5, few=10_000, many=10_000_000, lookups=500, posts=20, window=50_000
    ),
    Size.QUICK: Counts(seconds=4, rounds=3, few=10_000, many=1_000_000, lookups=200, posts=10, window=10_000),
    Size.SMALLEST: Counts(seconds=0.3, rounds=1, few=100, many=1_000, lookups=5, posts=1, window=100),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print it; the exit code."""
    size: Size = make_parser(__doc__).parse_args(arguments).size
    counts, targets = COUNTS[size], Targets(size.judged)
    with tempfile.TemporaryDirectory() as place:
        _measure_accepting(Path(place) / "accepting", counts, targets)
        _measure_lookups(Path(place) / "lookups", counts, targets)
        _measure_seconds_to_result(Path(place) / "results", counts, targets)
        _measure_window(Path(place) / "window", counts, targets)
    return targets.exit_code()


def _measure_accepting(folder: Path, counts: Counts, targets: Targets) -> None:
    comparisons: list[Comparison] = []
    told: list[str] = []
    for what, commit_seconds, target in COMMITS:
        asked: dict[str, list[tuple[float, float]]] = {"ours": [], "bare": []}
        for number in range(counts.rounds):
            for name, serve in (("ours", serve_doors), ("bare", serve_bare)):
                place = folder / f"{name} {what} {number}"
                place.mkdir(parents=True)
                with _serving(serve, place, commit_seconds) as url:
                    asked[name].append(in_new_process(ask, url, counts.seconds))
        rates = {name: [rate for rate, _ in found] for name, found in asked.items()}
        ours, bare = (1000 * statistics.median(late for _, late in found) for found in asked.values())
        limit = max(max(found) for found in rates.values())
        comparisons.append(
            Comparison(f"accepted, {what}", "requests/s", rates["ours"], rates["bare"], limit, target)
        )
        verdict = targets.judge(f"p99, {what}", ours <= bare)
        told.append(f"p99 of accepting, {what}: {ours:,.1f} ms, bare {bare:,.1f} ms{verdict}")
    report(comparisons, targets)
    print("\n".join(told))


@contextlib.contextmanager
def _serving(serve: Callable[[str, int, float], None], folder: Path, commit_seconds: float) -> Iterator[str]:
    """The URL of a server in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(
        target=serve, args=(str(folder), port, commit_seconds), daemon=True
    )
    process.start()
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/job"
    finally:
        process.kill()
        process.join()


def serve_doors(place: str, port: int, commit_seconds: float) -> None:
    """What `batch-assets serve` accepts with; nothing is sealed, so that nothing is computed meanwhile."""
    from batch_assets.server.application import create_application
    from batch_assets.server.connections import create_server
    from batch_assets.server.gate import Gate
    from batch_assets.server.limits import Limits
    from batch_assets.server.pipelines import RequestPipelines
    from batch_assets.server.request_doors import taking_requests
    from batch_assets.server.tokens import OPERATOR, Tokens

    folder = Path(place)
    settings = make_settings(folder, {"max_open": 10**9})
    declared, ledger, database = (
        Declared({settings.name: settings}),
        open_ledger(folder),
        open_requests(folder),
    )
    if commit_seconds:
        sa.event.listen(database._engine, "commit", lambda _: time.sleep(commit_seconds))  # pyright: ignore
    application = create_application(ledger, lambda: declared, lambda: None)
    pipelines = RequestPipelines(lambda: declared)
    pipelines.all()
    with (
        taking_requests(application, pipelines, database, ledger),
        socket.create_server(("127.0.0.1", port)) as listening,
    ):
        gate = Gate(application, Tokens({TOKEN: OPERATOR}), Limits(), pipelines.longest_body)
        server = create_server(gate, Limits(), gate.body_limit)
        gc.collect()
        gc.freeze()
        server.run(sockets=[listening])


def serve_bare(place: str, port: int, commit_seconds: float) -> None:
    """One committed insert for each request, in the event loop: with SQLite nothing simpler is faster."""
    import uvicorn
    from fastapi import FastAPI, Request

    database = RequestsDatabase(f"sqlite:///{place}/bare.db")
    database.prepare()
    connection = database._engine.raw_connection()  # pyright: ignore[reportPrivateUsage]
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE jobs (id TEXT PRIMARY KEY, body BLOB NOT NULL)")
    application = FastAPI()

    @application.post("/job", status_code=202)
    async def post(request: Request) -> dict[str, str]:
        job_id, body = secrets.token_hex(16), await request.body()
        orjson.loads(body)
        cursor.execute("BEGIN IMMEDIATE")
        cursor.execute("INSERT INTO jobs VALUES (?, ?)", (job_id, body))
        time.sleep(commit_seconds)
        cursor.execute("COMMIT")
        return {"job_id": job_id, "status": "queued"}

    gc.collect()
    gc.freeze()
    uvicorn.run(application, port=port, log_level="error")


def ask(url: str, seconds: float) -> tuple[float, float]:
    """Accepted requests a second, and the p99 of how long each took."""
    return asyncio.run(_ask(url, seconds))


async def _ask(url: str, seconds: float) -> tuple[float, float]:
    taken: list[float] = []
    headers = {"x-api-key": TOKEN, "Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def post_until(end: float) -> None:
            while (begun := time.perf_counter()) < end:
                async with session.post(url, data=RECORD) as answer:
                    await answer.read()
                    assert answer.status == 202, answer.status
                taken.append(time.perf_counter() - begun)

        await asyncio.gather(*(post_until(time.perf_counter() + seconds / 4) for _ in range(CONNECTIONS)))
        taken.clear()
        begun = time.perf_counter()
        await asyncio.gather(*(post_until(begun + seconds) for _ in range(CONNECTIONS)))
        return len(taken) / (time.perf_counter() - begun), float(np.percentile(taken, 99))


def _measure_lookups(folder: Path, counts: Counts, targets: Targets) -> None:
    """Of requests in databases of different sizes."""
    folder.mkdir()
    ledger = open_ledger(folder)
    seconds: dict[int, list[float]] = {}
    look: dict[int, tuple[RequestStore, Results, list[str]]] = {}
    for rows in (counts.few, counts.many):
        database = open_requests(folder, f"requests{rows}")
        database.prepare()
        with database.write() as connection:
            connection.execute(sa.text(FILL), {"rows": rows})
            some = sa.text("SELECT id FROM requests_accepted WHERE number % :step = 0 LIMIT :most")
            values = {"step": max(rows // counts.lookups, 1), "most": counts.lookups}
            look[rows] = (
                RequestStore(database),
                Results(database, ledger),
                list(connection.scalars(some, values)),
            )
        seconds[rows] = []
    for few, many in zip(look[counts.few][2], look[counts.many][2], strict=True):
        for rows, job_id in ((counts.few, few), (counts.many, many)):
            begun = time.perf_counter()
            found = look[rows][0].find(job_id)
            assert found is not None
            look[rows][1].look_up(found)
            seconds[rows].append(time.perf_counter() - begun)
    few_ms, many_ms = (1000 * statistics.median(seconds[rows]) for rows in (counts.few, counts.many))
    verdict = targets.judge("lookup", many_ms <= GROWTH * few_ms)
    print(
        f"lookup: {few_ms:.2f} ms of {counts.few:,} requests, {many_ms:.2f} ms of {counts.many:,}: "
        f"growth {many_ms / few_ms:.2f}x, target {GROWTH:.1f}x{verdict}"
    )


def _measure_seconds_to_result(folder: Path, counts: Counts, targets: Targets) -> None:
    """From the acceptance of single requests to their results, the worker at work."""
    settings, ledger = make_settings(folder, {"seal_seconds": 1, "seal_records": 1000}), open_ledger(folder)
    database = open_requests(folder)
    worker = RequestWorker(settings, ledger, FakeHost().executor(settings), [], lambda: None)
    with _deployment(database):
        thread = threading.Thread(target=worker.run, daemon=True)
        thread.start()
        store, results = RequestStore(database), Results(database, ledger)
        seconds: list[float] = []
        for number in range(counts.posts):
            begun = time.perf_counter()
            [made] = store.accept([make_request(f"text {number}", settings)])
            found = store.find(made.id)
            while found is None or results.look_up(found).status != "completed":
                time.sleep(0.01)
                found = store.find(made.id)
            seconds.append(time.perf_counter() - begun)
        worker.ending.set()
        thread.join()
    verdict = targets.judge("seconds to a result", statistics.median(seconds) <= SECONDS_TO_RESULT)
    print(
        f"from acceptance to result, seal_seconds: 1, no model: {statistics.median(seconds):.2f} s, "
        f"target {SECONDS_TO_RESULT:.0f} s{verdict}"
    )


@contextlib.contextmanager
def _deployment(database: RequestsDatabase) -> Iterator[None]:
    """The worker looks into this database, as the deployment's own."""
    from unittest import mock

    with mock.patch("batch_assets.control.request_planning.deployment_database", lambda: database):  # noqa: PT008
        yield


def _measure_window(folder: Path, counts: Counts, targets: Targets) -> None:
    """From the sealing of one large window to its results, beside the same records as a file by `run`'s driver."""
    texts = [f"text number {number} of a window" for number in range(counts.window)]
    ours, peer = list[float](), list[float]()
    for number in range(counts.rounds):
        place = folder / f"window{number}"
        settings = make_settings(place, {"seal_records": counts.window})
        database = open_requests(place)
        for start in range(0, counts.window, 1000):
            send(database, settings, *texts[start : start + 1000])
        pipeline = open_asks(place, settings)
        begun = time.perf_counter()
        compute(pipeline, database)
        ours.append(counts.window / (time.perf_counter() - begun))
        file = folder / f"file{number}"
        file.mkdir()
        (file / "in.jsonl").write_bytes(b"".join(orjson.dumps({"text": text}) + b"\n" for text in texts))
        begun = time.perf_counter()
        _run(file)
        peer.append(counts.window / (time.perf_counter() - begun))
    ratio = statistics.median(theirs / mine for mine, theirs in zip(ours, peer, strict=True))
    verdict = targets.judge("window", ratio <= BESIDE_RUN)
    print(
        f"window of {counts.window:,}: {statistics.median(ours):,.0f} records/s from sealing to results, by run "
        f"{statistics.median(peer):,.0f}: {ratio:.2f} times as long, target {BESIDE_RUN:.1f}{verdict}"
    )


def _run(folder: Path) -> None:
    values = {"source": {"uri": f"{folder}/in.jsonl"}, "output": {"root": f"{folder}/out"}}
    settings = parse_pipeline(values, "texts", "a benchmark")
    with dg.DagsterInstance.ephemeral() as instance:
        driver = Driver(settings, instance, open_ledger(folder), FakeHost())  # pyright: ignore[reportArgumentType]
        driver.plan()
        driver.embed()


if __name__ == "__main__":
    raise SystemExit(main())
