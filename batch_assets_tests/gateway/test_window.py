"""What a window lets through: the right number of calls for servers of every kind, in order, and none lost."""

import asyncio
from collections.abc import Callable

import pytest

from batch_assets.gateway.window import Window
from batch_assets_tests.gateway.simulated_server import (
    Course,
    Latency,
    Server,
    heavy_tailed,
    jittered,
    send,
    simulate,
)

Changes = dict[float, Callable[[], None]]


def course_of(
    server: Server,
    until: float,
    *,
    calls: int | None = None,
    demand: int | None = None,
    fixed: int | None = None,
    changes: Changes | None = None,
) -> Course:
    async def main() -> Course:
        window = Window(fixed=fixed, clock=asyncio.get_running_loop().time)
        return await send(window, server, until, calls=calls, demand=demand, changes=changes)

    return simulate(main())


# The size that it finds.


@pytest.mark.parametrize("slots", [1, 4, 64, 300])
@pytest.mark.parametrize("latency", [jittered(2.0), heavy_tailed(2.0)], ids=["jittered", "heavy-tailed"])
def test_slots_and_a_queue(slots: int, latency: Latency) -> None:
    """Within twenty changes of size, ten as a rule, it is within 20% of the slots, and it stays about there."""
    until = 60_000 / max(slots, 10)
    course = course_of(Server(slots, latency), until)
    steps = course.steps_until(0.8 * slots, 1.2 * slots)
    assert steps is not None and steps <= 20
    assert 0.8 * slots <= course.mean_size(until / 2, until) <= max(1.3 * slots, slots + 1)
    assert course.rate(until / 2, until) > 0.9 * course_of(Server(slots, latency), until, fixed=slots).rate(
        until / 2, until
    )


@pytest.mark.parametrize("slots", [1, 4, 64, 300])
def test_throughput_that_falls_under_load(slots: int) -> None:
    server = Server(
        10**6,
        slows=lambda in_flight: max(1.0, in_flight / slots) ** 1.5,
    )
    until = 40_000 / max(slots, 10)
    course = course_of(server, until)
    assert 0.8 * slots <= course.mean_size(until / 2, until) <= 1.3 * slots
    assert course.rate(until / 2, until) > 0.85 * slots / 2.0


@pytest.mark.parametrize("slots", [1, 4, 64, 300])
@pytest.mark.parametrize("retry_after", [None, 1.0])
def test_a_server_that_refuses_what_is_above_its_slots(slots: int, retry_after: float | None) -> None:
    until = 40_000 / max(slots, 10)
    course = course_of(Server(slots, refuses=True, retry_after=retry_after), until)
    assert course.rate(until / 2, until) > 0.85 * slots / 2.0
    assert len(course.refused) < 0.02 * len(course.delivered) + 15


@pytest.mark.parametrize("seconds", [0.05, 2.0, 30.0])
@pytest.mark.parametrize("kind", [jittered, heavy_tailed])
def test_the_latency_does_not_matter(seconds: float, kind: Callable[[float], Latency]) -> None:
    until = 400 * seconds
    course = course_of(Server(64, kind(seconds)), until)
    assert 50 <= course.mean_size(until / 2, until) <= 90


@pytest.mark.parametrize("refuses", [False, True])
def test_capacity_that_changes(refuses: bool) -> None:
    server = Server(64, refuses=refuses)

    def set_slots(slots: int) -> Callable[[], None]:
        return lambda: setattr(server, "slots", slots)

    course = course_of(server, 2_400, changes={400: set_slots(16), 1_200: set_slots(64)})
    assert 50 <= course.mean_size(200, 400) <= 90
    assert 12 <= course.mean_size(1_000, 1_200) <= 24
    assert 50 <= course.mean_size(2_000, 2_400) <= 90


@pytest.mark.parametrize("seed", range(5))
def test_latency_above_the_time_out_over_four_in_flight(seed: int) -> None:
    """As in neomjs/neo#16012."""
    server = Server(
        10**6,
        jittered(10.0),
        slows=lambda in_flight: 1.0 if in_flight <= 4 else 5.0,
        timeout=30.0,
        seed=seed,
    )
    course = course_of(server, 10**6, calls=200)
    assert len(course.delivered) == 200 and len(course.refused) <= 0.3 * 200
    assert course.sizes[-1][1] <= 4


def test_a_server_that_refuses_everything_for_a_minute() -> None:
    server = Server(64)
    away, back = (lambda: setattr(server, "is_away", True)), (lambda: setattr(server, "is_away", False))
    course = course_of(server, 600, changes={200: away, 260: back})
    assert len(course.refused) < 64 + 30, "asked by one call alone, with growing pauses"
    assert course.rate(400, 600) > 0.9 * 32


def test_a_server_that_refuses_everything_from_the_start() -> None:
    server = Server(64, is_away=True)
    course = course_of(server, 400, changes={60: lambda: setattr(server, "is_away", False)})
    assert len(course.refused) < 20
    assert course.rate(200, 400) > 0.9 * 32


@pytest.mark.parametrize("demand", [10, 100])
def test_no_growth_without_use(demand: int) -> None:
    course = course_of(Server(300), 1_000, demand=demand)
    assert course.rate(500, 1_000) > 0.95 * demand / 2
    assert course.mean_size(500, 1_000) <= 1.1 * demand
    assert max(size for _, size in course.sizes) <= 2 * demand


def test_continuous_batching() -> None:
    """Latency grows slowly with the load: no more in flight than pay for themselves."""
    slows = lambda in_flight: 1 + in_flight / 64  # noqa: E731
    course = course_of(Server(10**6, jittered(1.0), slows=slows), 600)
    assert course.rate(300, 600) > 0.75 * 64, "of what it gives with any number in flight"
    assert course.mean_size(300, 600) < 600


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_calls_lost_whatever_the_load(share: float) -> None:
    course = course_of(Server(64, loses=share), 1_200)
    assert course.rate(600, 1_200) > 0.85 * 32


# The rules of one call.


def window_of(**settings: int) -> Window:
    return Window(clock=asyncio.get_running_loop().time, **settings)


def test_no_growth_before_the_first_delivery() -> None:
    async def main() -> None:
        window = window_of()
        calls = [await window.enter() for _ in range(window.size)]
        waiting = asyncio.create_task(window.enter())
        await asyncio.sleep(3_600)
        assert not waiting.done() and window.in_flight == len(calls) == 4
        window.delivered(calls[0])
        await waiting
        assert window.in_flight == 4

    simulate(main())


def test_one_decrease_per_flight() -> None:
    async def main() -> None:
        window = window_of()
        seen = set[int]()
        while window.size < 64:
            flight = [await window.enter() for _ in range(window.size)]
            await asyncio.sleep(1.0)
            for call in flight:
                window.delivered(call)
        flight = [await window.enter() for _ in range(window.size)]
        for call in flight:
            window.refused(call)
            seen.add(window.size)
        assert len(seen) == 2 and window.size == 32 and window.refusals == len(flight)

    simulate(main())


@pytest.mark.parametrize("fixed", [None, 3])
def test_retry_after_is_honoured(fixed: int | None) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        window = Window(fixed=fixed, clock=loop.time)
        first, second = await window.enter(), await window.enter()
        window.refused(first, 20.0)
        window.refused(second, 5.0)  # a shorter pause does not cut a longer one
        assert window.pause == 20.0
        await window.enter()
        assert loop.time() == 20.0 and window.pause == 0.0

    simulate(main())


def test_a_fixed_size_stays() -> None:
    course = course_of(Server(4, refuses=True), 100, fixed=10)
    assert [size for _, size in course.sizes] == [10] and course.refused


def test_first_come_first_served_and_the_cancelled_leave_no_trace() -> None:
    async def main() -> None:
        window = window_of(fixed=1)
        call, order = await window.enter(), list[int]()

        async def wait(number: int) -> None:
            entered = await window.enter()
            order.append(number)
            window.delivered(entered)

        tasks = [asyncio.create_task(wait(number)) for number in range(5)]
        await asyncio.sleep(0)
        tasks[1].cancel()  # while it waits
        await asyncio.sleep(0)
        window.ended(call)  # makes room for the first
        tasks[0].cancel()  # when room is made for it, but before it knows
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [2, 3, 4] and window.in_flight == 0

    simulate(main())


def test_a_waiter_cancelled_just_before_room_is_made_is_passed_over() -> None:
    async def main() -> None:
        window = window_of(fixed=1)
        call = await window.enter()
        first, second = asyncio.create_task(window.enter()), asyncio.create_task(window.enter())
        await asyncio.sleep(0)
        first.cancel()
        window.ended(call)
        with pytest.raises(asyncio.CancelledError):
            await first
        window.ended(await second)
        assert window.in_flight == 0

    simulate(main())


def test_a_call_counts_once() -> None:
    async def main() -> None:
        window = window_of(fixed=2)
        call = await window.enter()
        window.delivered(call)
        window.ended(call)
        window.refused(call)
        assert window.in_flight == 0 and window.refusals == 0

    simulate(main())
