"""When calls go out to a server that sheds them: what live traffic leaves is used, a full server is asked seldom."""

import asyncio

from batch_assets.dispatch.admission import Admission
from batch_assets.gateway.window import Window
from batch_assets_tests.gateway.simulated_server import simulate
from benchmarks.in_the_cracks import measure, ours


def test_what_live_traffic_leaves_is_used_and_live_traffic_hardly_waits_for_it() -> None:
    alone = simulate(measure(600.0, None, sheds=True))
    found = simulate(measure(600.0, ours, sheds=True))
    assert alone.used < 0.85
    assert found.used > 0.93
    assert found.p99 < 1.1 * alone.p99


async def tries_until(
    admission: Admission, seconds: float, *, refuses_until: float, asked: float = 0.05
) -> list[float]:
    """When calls went out to a server that refuses all of them at first, then takes any number for a second each."""
    loop = asyncio.get_running_loop()
    sent: list[float] = []
    tasks: set[asyncio.Task[None]] = set()

    async def send() -> None:
        call = await admission.enter()
        sent.append(loop.time())
        if loop.time() < refuses_until:
            await asyncio.sleep(asked)
            admission.refused(call)
        else:
            await asyncio.sleep(1.0)
            admission.delivered(call)

    while loop.time() < seconds:
        while len(tasks) < 8:
            task = asyncio.ensure_future(send())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.wait(tasks, timeout=seconds - loop.time(), return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return sent


def test_a_server_that_is_full_is_asked_about_once_in_the_time_of_a_call_and_used_again_at_once() -> None:
    async def main() -> list[float]:
        clock = asyncio.get_running_loop().time
        admission = Admission(Window(clock=clock), clock)
        return await tries_until(admission, 660.0, refuses_until=600.0)

    sent = simulate(main())
    assert 400 < sum(at < 600 for at in sent) < 1_000
    # Eight calls of a second each at a time: after a few seconds it is as if nothing had been.
    assert sum(605 <= at < 660 for at in sent) > 0.9 * 8 * 55


def test_a_call_that_is_given_up_in_line_leaves_no_place_behind() -> None:
    async def main() -> int:
        clock = asyncio.get_running_loop().time
        admission = Admission(Window(fixed=2, clock=clock), clock)
        for _ in range(10):
            admission.refused(await admission.enter())
        waiting = [asyncio.ensure_future(admission.enter()) for _ in range(5)]
        await asyncio.sleep(0.0001)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return admission.window.in_flight

    assert simulate(main()) == 0
