"""How much of a model server's idle capacity a backlog uses, and what that costs its live traffic.

    python -m benchmarks.in_the_cracks [--quick]

Simulated time, so that hours take seconds and every run is the same: a server with continuous batching (`SLOTS`
requests at a time, all of them slower the more there are), live traffic at 80% of its capacity with bursts to 110%, and
a backlog without end. How the worker lets calls out (`batch_assets/dispatch/admission.py`) is held beside fixed numbers
of calls and beside llm-d's AIMD gate, at a server that sheds the backlog's calls first, and at one that does not; there
with the gate `saturation`, too.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from batch_assets.dispatch.admission import Admission
from batch_assets.dispatch.gates.readings import free_share
from batch_assets.dispatch.gates.shares import SaturationGate
from batch_assets.dispatch.messages import parse
from batch_assets.dispatch.metrics import Metrics
from batch_assets.gateway.window import Window
from batch_assets_tests.gateway.simulated_server import simulate
from benchmarks.arguments import Size, make_parser

SLOTS = 64
ALONE_SECONDS, SLOWDOWN = 2.0, 0.3
"""Time of a request alone, and by how much more of it a full server takes."""
LIVE, BURST = 0.8, 1.1
"""Live traffic as a share of the capacity, outside of bursts and in them."""
BURST_SECONDS, BETWEEN_SECONDS = 30.0, 270.0
REFUSAL_SECONDS = 0.05
"""Until a refusal is back."""
SECONDS = {Size.SMALLEST: 60.0, Size.QUICK: 1_200.0, Size.FULL: 4 * 3_600.0}
"""Simulated."""
USED_TARGET, P99_TARGET = 0.95, 1.05


class Limit(Protocol):
    """Who decides how many of the backlog's calls are in flight."""

    async def enter(self) -> Any: ...
    def delivered(self, call: Any) -> None: ...
    def refused(self, call: Any) -> None: ...


def ours(_: "Server") -> "Limit":
    """The worker's: nothing set."""
    clock = asyncio.get_running_loop().time
    return Admission(Window(clock=clock), clock)


class Gated:
    """The worker's behind its gate `saturation`, which reads once a second how many slots are in use."""

    def __init__(self, server: "Server", threshold: float) -> None:
        clock = asyncio.get_running_loop().time
        self._server, self._threshold = server, threshold
        self._admission = Admission(Window(clock=clock), clock)
        self._changed = asyncio.Event()
        self._message = parse(b'{"id": "a", "payload": {"prompt": ""}}')

        def size() -> int:
            return self._admission.window.size

        self._gate = SaturationGate("gate", self._read, size, Metrics(), self._changed.set, every_seconds=1.0)
        self._watching = asyncio.ensure_future(self._gate.watch())

    async def _read(self) -> float:
        return free_share(1.0 if self._server.waiting else self._server.active / SLOTS, self._threshold)

    async def enter(self) -> Any:
        while self._gate.room() < 1:
            self._changed.clear()
            await self._changed.wait()
        self._gate.admit(self._message)
        return await self._admission.enter()

    def delivered(self, call: Any) -> None:
        self._admission.delivered(call)
        self._release()

    def refused(self, call: Any) -> None:
        self._admission.refused(call)
        self._release()

    def _release(self) -> None:
        self._gate.release(self._message)
        self._changed.set()


class Fixed:
    """So many at a time; what is refused makes room for the next at once."""

    def __init__(self, size: int) -> None:
        self._places = asyncio.Semaphore(size)

    async def enter(self) -> Any:
        await self._places.acquire()

    def delivered(self, call: Any) -> None:
        self._places.release()

    def refused(self, call: Any) -> None:
        self._places.release()


class Aimd:
    """llm-d-async's gate `aimd`: from 1 to 256, slow start, half after a refusal, one decrease a flight."""

    def __init__(self) -> None:
        self._size, self._threshold, self._in_flight = 1.0, 256.0, 0
        self._cut_at = -1.0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> Any:
        while self._in_flight >= int(self._size):
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            await place
        self._in_flight += 1
        return asyncio.get_running_loop().time()

    def delivered(self, call: Any) -> None:
        if call > self._cut_at:
            self._size = min(256.0, self._size + (1.0 if self._size < self._threshold else 1.0 / self._size))
        self._leave()

    def refused(self, call: Any) -> None:
        if call > self._cut_at:
            self._threshold = self._size = max(1.0, self._size / 2)
            self._cut_at = asyncio.get_running_loop().time()
        self._leave()

    def _leave(self) -> None:
        self._in_flight -= 1
        for _ in range(min(len(self._waiting), max(0, int(self._size) - self._in_flight))):
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)


@dataclass
class Server:
    """Requests in flight are as many as there are slots; live ones wait for a slot, others are shed, or wait too."""

    sheds: bool
    chance: random.Random
    active: int = 0
    waiting: deque[Callable[[], None]] = field(default_factory=deque)
    busy: float = 0.0
    _since: float = 0.0

    def count(self) -> None:
        """Bring `busy`, the integral of requests in flight over time, up to now."""
        now = asyncio.get_running_loop().time()
        self.busy += self.active * (now - self._since)
        self._since = now

    async def serve(self, *, live: bool) -> bool:
        """Whether it was served, and not shed."""
        if self.active >= SLOTS or self.waiting:
            if self.sheds and not live:
                await asyncio.sleep(REFUSAL_SECONDS)
                return False
            turn = asyncio.get_running_loop().create_future()
            self.waiting.append(lambda: turn.set_result(None))
            await turn  # whoever leaves has kept the slot for it
        else:
            self.count()
            self.active += 1
        load = self.active / SLOTS
        await asyncio.sleep(ALONE_SECONDS * (1 + SLOWDOWN * load) * self.chance.uniform(0.5, 1.5))
        if self.waiting:
            self.waiting.popleft()()
        else:
            self.count()
            self.active -= 1
        return True


@dataclass(frozen=True)
class Measured:
    """Shares of the capacity, and seconds of live requests."""

    used: float
    backlog: float
    p99: float
    refusals: float


async def measure(seconds: float, make: Callable[["Server"], Limit] | None, *, sheds: bool) -> Measured:
    """Live traffic for so long, with a backlog let through by what `make` returns; none with None."""
    loop = asyncio.get_running_loop()
    server = Server(sheds, random.Random(2))
    latencies: list[float] = []
    counted = {"served": 0, "shed": 0}
    tasks: set[asyncio.Task[None]] = set()
    capacity = SLOTS / (ALONE_SECONDS * (1 + SLOWDOWN))

    async def live() -> None:
        asked = loop.time()
        await server.serve(live=True)
        latencies.append(loop.time() - asked)

    async def traffic() -> None:
        chance = random.Random(1)
        while True:
            is_burst = loop.time() % (BURST_SECONDS + BETWEEN_SECONDS) >= BETWEEN_SECONDS
            await asyncio.sleep(chance.expovariate(capacity * (BURST if is_burst else LIVE)))
            start(live())

    def start(coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def backlog(limit: Limit) -> None:
        async def send(call: Any) -> None:
            if await server.serve(live=False):
                counted["served"] += 1
                limit.delivered(call)
            else:
                counted["shed"] += 1
                limit.refused(call)

        while True:
            start(send(await limit.enter()))

    runs = [asyncio.ensure_future(traffic())]
    if make is not None:
        runs.append(asyncio.ensure_future(backlog(make(server))))
    await asyncio.sleep(seconds)
    server.count()
    for task in (*runs, *tasks):
        task.cancel()
    await asyncio.gather(*runs, *tasks, return_exceptions=True)
    tries = counted["served"] + counted["shed"]
    return Measured(
        server.busy / (SLOTS * seconds),
        counted["served"] / (capacity * seconds),
        float(np.percentile(latencies, 99)),
        counted["shed"] / tries if tries else 0.0,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print how each does; the exit code, 1 where the worker misses a target."""
    size: Size = make_parser(__doc__).parse_args(arguments).size
    seconds = SECONDS[size]
    kinds: dict[str, Callable[[Server], Limit]] = {
        "ours, nothing set": ours,
        "ours, gate at 0.95": lambda server: Gated(server, 0.95),
        "ours, gate at 0.8": lambda server: Gated(server, 0.8),
        "fixed at 8": lambda _: Fixed(8),
        "fixed at 64": lambda _: Fixed(64),
        "llm-d's AIMD": lambda _: Aimd(),
    }
    missed: list[str] = []
    for sheds in (True, False):
        print(f"a server of {SLOTS} slots that {'sheds the backlog first' if sheds else 'sheds nothing'}")
        alone = simulate(measure(seconds, None, sheds=sheds))
        print(f"  {'':20} {'used':>6} {'backlog':>8} {'live p99':>9} {'ratio':>6} {'refused':>8}")
        print(f"  {'without a backlog':20} {alone.used:6.3f} {'':8} {alone.p99:7.2f} s")
        for name, make in kinds.items():
            found = simulate(measure(seconds, make, sheds=sheds))
            ratio = found.p99 / alone.p99
            print(
                f"  {name:20} {found.used:6.3f} {found.backlog:8.3f} {found.p99:7.2f} s {ratio:5.2f}x"
                f" {found.refusals:8.3f}"
            )
            if sheds and make is ours:
                missed += [] if found.used >= USED_TARGET else [f"used {found.used:.3f} of {USED_TARGET}"]
                missed += [] if ratio <= P99_TARGET else [f"p99 {ratio:.2f}x, target {P99_TARGET}x"]
    print(
        f"limit: used 1.000, p99 1.00x; target: used {USED_TARGET}, p99 at most {P99_TARGET}x, where it sheds"
    )
    if missed and size.judged:
        print(f"missed: {'; '.join(missed)}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
