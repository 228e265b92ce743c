"""What goes out in any minute, for any calls: no more than the limits and the burst, in order, and all of it."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_assets.gateway.rates import BURST_SECONDS, Governor
from batch_assets_tests.gateway.simulated_server import simulate

CALLS = st.lists(
    st.tuples(st.floats(0, 20), st.integers(1, 3_000), st.floats(0, 1)), min_size=1, max_size=60
)  # the pause before it comes, its tokens, the share that it turns out to use


def sent(
    calls: Sequence[tuple[float, int, float]], requests: float | None, tokens: float | None
) -> list[tuple[float, int, int]]:
    """When each call went out, its number, and the tokens that it used."""

    async def main() -> list[tuple[float, int, int]]:
        loop = asyncio.get_running_loop()
        governor, out = Governor(requests, tokens, loop.time), list[tuple[float, int, int]]()

        async def call(number: int, asked: int, share: float) -> None:
            await governor.take(asked)
            used = int(asked * share)
            out.append((loop.time(), number, used))
            governor.refund(asked - used)

        tasks = list[asyncio.Task[None]]()
        for number, (pause, asked, share) in enumerate(calls):
            await asyncio.sleep(pause)
            tasks.append(asyncio.create_task(call(number, asked, share)))
        await asyncio.gather(*tasks)
        return out

    return simulate(main())


@settings(deadline=None, max_examples=60)
@given(CALLS, st.sampled_from([6, 60, 600]), st.sampled_from([6_000, 60_000]))
def test_no_minute_holds_more_than_the_limits(
    calls: list[tuple[float, int, float]], requests: int, tokens: int
) -> None:
    out = sent(calls, requests, tokens)
    assert [number for _, number, _ in out] == list(range(len(calls))), (
        "first come, first served, and nobody is left"
    )
    largest = max(used for _, _, used in out)
    for start, _, _ in out:
        minute = [used for at, _, used in out if start <= at < start + 60]
        assert len(minute) <= requests * (1 + BURST_SECONDS / 60) + 1
        assert sum(minute) <= tokens * (1 + BURST_SECONDS / 60) + largest


def test_a_call_larger_than_a_minute_goes_alone_and_is_paid_off() -> None:
    out = sent([(0, 3_000, 1), (0, 10, 1)], None, 1_000)
    assert out[0][0] == 0.0
    assert out[1][0] == pytest.approx((3_000 - 50 + 10) / 1_000 * 60)


def test_what_a_call_did_not_use_goes_to_the_next() -> None:
    out = sent([(0, 1_000, 0), (0, 1_000, 0), (0, 1_000, 0)], None, 1_000)
    assert [at for at, _, _ in out] == [0.0, 0.0, 0.0]


def test_more_used_than_taken_is_paid_off_by_the_next() -> None:
    out = sent([(0, 10, 100), (0, 10, 1)], None, 1_000)
    assert out[1][0] == pytest.approx((1_000 - 50 + 10) / 1_000 * 60)


def test_a_rate_is_smooth() -> None:
    out = sent([(0, 1, 1)] * 20, 60, None)
    assert [round(at) for at, _, _ in out] == [0, 0, 0, *range(1, 18)]


def test_the_cancelled_take_nothing() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        governor = Governor(60, None, loop.time)
        for _ in range(3):
            await governor.take(0)
        gone, kept = asyncio.create_task(governor.take(0)), asyncio.create_task(governor.take(0))
        await asyncio.sleep(0.5)
        gone.cancel()
        await kept
        assert loop.time() == pytest.approx(1.0)

    simulate(main())


def test_without_limits_nothing_waits() -> None:
    assert {at for at, _, _ in sent([(0, 10**6, 1)] * 100, None, None)} == {0.0}
