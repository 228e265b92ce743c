"""Requests without end: whether memory, ticks, lookups and other pipelines' claims cost the same after very many.

Four tenants send as fast as a worker, a process of its own without a model, answers them; then all but the newest
requests leave by `keep`.

    python -m benchmarks.requests_soak [--quick | --smallest]
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from unittest import mock

from batch_assets.control.pipeline import open_pipeline
from batch_assets.control.request_planning import windows_due
from batch_assets.control.request_removal import remove_expired
from batch_assets.control.request_worker import RequestWorker
from batch_assets.ledger.holder import Holder
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets.requests.account import read_account
from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.results import COMPLETED, Results
from batch_assets.requests.store import Request, RequestStore
from batch_assets.requests.tenants import open_by_tenant
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets_tests.control.builders import open_ledger
from batch_assets_tests.fakes import FakeHost
from batch_assets_tests.requests.builders import NAME, make_request, make_settings, open_requests
from benchmarks.arguments import Size, make_parser
from benchmarks.measure import Targets

TENANTS = ("alice", "bob", "carol", "dave")
IN_A_ROW = 1_000
OPEN_SHARE = 40
"""Of all requests one in so many may be open."""
CLAIMS, LOOKUPS = 20, 50
STAGES = 12
"""Figures are taken after each; the last third is compared with the first, of which the very first is left out."""
GROWTH, MEMORY_GROWTH = 2.0, 1.15
OTHER = "texts"
REQUESTS = {Size.FULL: 1_000_000, Size.QUICK: 60_000, Size.SMALLEST: 1_200}


@dataclass
class Figures:
    """What was measured after each stage."""

    memory_mb: list[float] = field(default_factory=list)
    tick_ms: list[float] = field(default_factory=list)
    lookup_ms: list[float] = field(default_factory=list)
    claim_ms: list[float] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print it; the exit code."""
    size: Size = make_parser(__doc__).parse_args(arguments).size
    targets = Targets(size.judged)
    with tempfile.TemporaryDirectory() as place:
        _measure(Path(place), REQUESTS[size], targets)
    return targets.exit_code()


def make_asks(folder: Path) -> PipelineSettings:
    return make_settings(folder, {"seal_records": IN_A_ROW, "seal_seconds": 1, "keep": "1h"}, parity="off")


def work(folder: str, ending: Event) -> None:
    """The worker of one pipeline until told to end, as `serve` has it in a process of its own."""
    import threading

    place = Path(folder)
    settings, database = make_asks(place), open_requests(place)
    worker = RequestWorker(settings, open_ledger(place), FakeHost().executor(settings), [], lambda: None)

    def wait() -> None:
        ending.wait()
        worker.ending.set()

    threading.Thread(target=wait, daemon=True).start()
    with mock.patch("batch_assets.control.request_planning.deployment_database", lambda: database):  # noqa: PT008
        worker.run()


def _measure(folder: Path, requests: int, targets: Targets) -> None:
    settings, ledger, database = make_asks(folder), open_ledger(folder), open_requests(folder)
    _plan_another(ledger, folder)
    idle = _claim_ms(ledger)
    context = get_context("spawn")
    ending = context.Event()
    process = context.Process(target=work, args=(str(folder), ending), daemon=True)
    process.start()
    figures = Figures()
    begun = time.perf_counter()
    try:
        for stage in range(STAGES):
            first, last = requests * stage // STAGES, requests * (stage + 1) // STAGES
            ids = _send(database, ledger, settings, range(first, last), requests // OPEN_SHARE)
            _look(figures, settings, ledger, database, process, ids)
        while read_account(database, ledger, NAME).open:
            time.sleep(0.1)
        seconds = time.perf_counter() - begun
    finally:
        ending.set()
        process.join(60)
        process.kill()
    account = read_account(database, ledger, NAME)
    print(
        f"{account.accepted:,} requests accepted and answered in {seconds:,.0f} s, {account.accepted / seconds:,.0f} "
        f"a second{targets.require('account', account.missing == 0 and account.completed == requests)}; without an "
        f"answer: {account.accepted - account.completed}"
    )
    _tell("memory of the worker", "MB", figures.memory_mb, MEMORY_GROWTH, targets)
    _tell("ticks and counts", "ms", figures.tick_ms, GROWTH, targets)
    _tell("lookup", "ms", figures.lookup_ms, GROWTH, targets)
    _tell("claim by another pipeline", "ms", figures.claim_ms, GROWTH, targets)
    print(f"claim by another pipeline without any requests: {idle:.2f} ms")
    _measure_removal(folder, database, requests, targets)


def _send(
    database: RequestsDatabase, ledger: Ledger, settings: PipelineSettings, numbers: range, most_open: int
) -> list[str]:
    """Have requests accepted, as they find room; their ids."""
    store, ids = RequestStore(database), list[str]()
    for start in range(0, len(numbers), IN_A_ROW):
        while read_account(database, ledger, NAME).open > most_open:
            time.sleep(0.05)
        some = numbers[start : start + IN_A_ROW]
        made = store.accept([make_request(f"text {one}", settings, TENANTS[one % 4]) for one in some])
        ids += [one.id for one in made]
    return ids


def _look(
    figures: Figures,
    settings: PipelineSettings,
    ledger: Ledger,
    database: RequestsDatabase,
    process: BaseProcess,
    ids: Sequence[str],
) -> None:
    resident = Path(f"/proc/{process.pid}/status").read_text().split("VmRSS:")[1].split()[0]
    figures.memory_mb.append(int(resident) / 1024)
    pipeline = open_pipeline(settings, ledger, FakeHost().executor(settings))
    with mock.patch("batch_assets.control.request_planning.deployment_database", lambda: database):  # noqa: PT008
        figures.tick_ms.append(_ms(lambda: windows_due(settings, pipeline.storage), 5))
    figures.tick_ms[-1] += _ms(lambda: read_account(database, ledger, NAME), 5)
    figures.tick_ms[-1] += _ms(lambda: open_by_tenant(database, ledger, NAME), 5)
    store, results = RequestStore(database), Results(database, ledger)
    wanted = ids[:: max(len(ids) // LOOKUPS, 1)]
    while not (answered := _answered(store, results, wanted)):
        time.sleep(0.05)
    figures.lookup_ms.append(_ms(iter(map(results.look_up, answered)).__next__, len(answered)))
    figures.claim_ms.append(_claim_ms(ledger))


def _answered(store: RequestStore, results: Results, ids: Sequence[str]) -> list[Request]:
    found = [one for job_id in ids if (one := store.find(job_id)) is not None]
    statuses = results.statuses(found)
    return [one for one in found if statuses[one.id] == COMPLETED]


def _ms(step: Callable[[], object], times: int) -> float:
    """The median of so many times."""
    taken: list[float] = []
    for _ in range(times):
        begun = time.perf_counter()
        step()
        taken.append(1000 * (time.perf_counter() - begun))
    return statistics.median(taken)


def _plan_another(ledger: Ledger, folder: Path) -> None:
    ledger.attach(OTHER, str(folder / "other"), 1)
    ledger.add_shards(OTHER, 1, [(f"g0001-{number:05d}", number, 1, 1) for number in range(CLAIMS)])
    keys = [row.key for row in ledger.shards(OTHER)]
    ledger.move(OTHER, keys, [State.PLANNED], State.PREPARED)
    ledger.move(OTHER, keys, [State.PREPARED], State.READY)


def _claim_ms(ledger: Ledger) -> float:
    keys = iter([row.key for row in ledger.shards(OTHER, states=[State.READY])])
    holder = Holder.current()

    def claim() -> None:
        found = ledger.claim(OTHER, next(keys), holder)
        assert found is not None
        assert ledger.release(found)

    return _ms(claim, CLAIMS)


def _tell(name: str, unit: str, found: Sequence[float], target: float, targets: Targets) -> None:
    third = len(found) // 3
    first, last = statistics.median(found[1 : third + 1]), statistics.median(found[-third:])
    verdict = targets.judge(name, last <= target * first)
    print(
        f"{name}: {first:,.2f} {unit} in the beginning, {last:,.2f} in the end: growth {last / first:.2f}x, "
        f"target {target:.2f}x{verdict}"
    )


def _measure_removal(folder: Path, database: RequestsDatabase, requests: int, targets: Targets) -> None:
    settings = make_asks(folder)
    ledger = Ledger.open(f"sqlite:///{folder}/ledger.db", clock=lambda: time.time() + 2 * 3600)
    pipeline = open_pipeline(settings, ledger, FakeHost().executor(settings))
    begun = time.perf_counter()
    generations = remove_expired(pipeline, database)
    seconds = time.perf_counter() - begun
    with database.read() as connection:
        left = connection.exec_driver_sql("SELECT count(*) FROM requests_accepted").scalar() or 0
    account = read_account(database, ledger, NAME)
    verdict = targets.require("removal", account.missing == 0 and account.completed == requests)
    print(
        f"removed {requests - left:,} requests of {generations:,} plans in {seconds:,.1f} s, the newest {left:,} left"
        f"{verdict}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
