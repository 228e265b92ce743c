"""A model server in simulated time: calls through a window to a server of a certain kind, without a network.

The event loop's clock jumps to the next event, so that an hour of 30-second answers takes moments, and every run is
the same for the same seed.
"""

import asyncio
import itertools
import random
import selectors
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from batch_assets.gateway.window import Call, Window


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for no file; the time that it was told to wait passes at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everybody waits and nothing will happen"
        self.now += timeout
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop of which the time is simulated."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


Result = TypeVar("Result")


def simulate(main: Coroutine[Any, Any, Result]) -> Result:
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(main)


Latency = Callable[[random.Random], float]


def jittered(seconds: float) -> Latency:
    return lambda chance: seconds * chance.uniform(0.7, 1.3)


def heavy_tailed(seconds: float) -> Latency:
    """Lengths of answers that vary tenfold: most are short, a few are long."""
    return lambda chance: seconds * min(10.0, max(1.0, chance.lognormvariate(0.8, 0.8))) / 2.9


@dataclass
class Server:
    """Takes `slots` calls at a time; what becomes of the calls above them is the kind of server."""

    slots: int
    latency: Latency = field(default_factory=lambda: jittered(2.0))
    slows: Callable[[int], float] = lambda in_flight: 1.0  # the factor on the latency with so many in flight
    refuses: bool = False  # what is above the slots, rather than letting it queue
    retry_after: float | None = None
    timeout: float | None = None
    is_away: bool = False  # refuses everything
    loses: float = 0.0  # this share of the calls, whatever the load
    seed: int = 1

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.working = 0
        self.queue: deque[Callable[[], None]] = deque()
        self.inside = 0

    def take(self, end: Callable[[bool], None]) -> None:
        """`end` is called once with whether the call was delivered."""
        loop = asyncio.get_running_loop()
        if self.is_away or (self.refuses and self.inside >= self.slots) or self.chance.random() < self.loses:
            loop.call_later(0.005, end, False)
            return
        self.inside += 1
        given_up = False

        def give_up() -> None:
            nonlocal given_up
            given_up = True
            end(False)

        timer = None if self.timeout is None else loop.call_later(self.timeout, give_up)

        def begin() -> None:
            self.working += 1
            loop.call_later(self.latency(self.chance) * self.slows(self.inside), finish)

        def finish() -> None:
            self.inside -= 1
            self.working -= 1
            while self.queue and self.working < self.slots:
                self.queue.popleft()()
            if timer is not None:
                timer.cancel()
            if not given_up:
                end(True)

        if self.working < self.slots:
            begin()
        else:
            self.queue.append(begin)


@dataclass
class Course:
    """What happened: the sizes of the window over time, and what was delivered and refused until when."""

    sizes: list[tuple[float, int]] = field(default_factory=list)
    delivered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def rate(self, since: float, until: float) -> float:
        return sum(since <= at < until for at in self.delivered) / (until - since)

    def mean_size(self, since: float, until: float) -> float:
        total, steps = 0.0, [*self.sizes, (until, 0)]
        for (start, size), (end, _) in itertools.pairwise(steps):
            total += size * max(0.0, min(end, until) - max(start, since))
        return total / (until - since)

    def steps_until(self, lowest: float, highest: float) -> int | None:
        """Changes of size until it first lies between the two."""
        return next((n for n, (_, size) in enumerate(self.sizes) if lowest <= size <= highest), None)


async def send(
    window: Window,
    server: Server,
    until: float,
    *,
    calls: int | None = None,
    demand: int | None = None,
    changes: dict[float, Callable[[], None]] | None = None,
) -> Course:
    """Call until the time is over or `calls` are delivered, at most `demand` at once; what is refused goes again."""
    loop, course = asyncio.get_running_loop(), Course()
    room = None if demand is None else asyncio.Semaphore(demand)
    done = asyncio.Event()
    left = calls if calls is not None else -1
    for at, change in (changes or {}).items():
        loop.call_at(at, change)

    def note() -> None:
        if not course.sizes or course.sizes[-1][1] != window.size:
            course.sizes.append((loop.time(), window.size))

    def ender(call: Call) -> Callable[[bool], None]:
        def end(delivered: bool) -> None:
            if delivered:
                window.delivered(call)
                course.delivered.append(loop.time())
            else:
                window.refused(call, server.retry_after)
                course.refused.append(loop.time())
            note()
            if room is not None:
                room.release()
            if len(course.delivered) == left:
                done.set()

        return end

    async def produce() -> None:
        while True:
            if room is not None:
                await room.acquire()
            server.take(ender(await window.enter()))

    note()
    producer = asyncio.create_task(produce())
    stop = loop.call_at(until, done.set)
    await done.wait()
    stop.cancel()
    producer.cancel()
    await asyncio.gather(producer, return_exceptions=True)
    return course
