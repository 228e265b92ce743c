"""Whether Ray is still there: how long its control store, or any answer at all, may be away."""

import threading

import pytest

from batch_assets.errors import ClusterLost
from batch_assets.executors.ray.pulse import (
    SILENT_SECONDS,
    UNREACHABLE_SECONDS,
    Pulse,
    Unreachable,
    answer_within,
)
from batch_assets_tests.executors.ray.helpers import Clock, alive, raising
from batch_assets_tests.waiting import PATIENCE_SECONDS


def test_a_control_store_may_be_away_for_a_while_but_not_until_ray_ends_the_process(clock: Clock) -> None:
    looks = [Unreachable(), None, Unreachable(), Unreachable()]

    def look() -> None:
        if (error := looks.pop(0)) is not None:
            raise error

    pulse = Pulse(look, clock)
    pulse.look_now()
    clock.now += UNREACHABLE_SECONDS - 1
    pulse.look_now()  # it is back
    clock.now += UNREACHABLE_SECONDS
    pulse.look_now()
    clock.now += UNREACHABLE_SECONDS + 1
    with pytest.raises(
        ClusterLost, match=r"control store \(GCS\) is not to be reached .* the same command goes on"
    ):
        pulse.look_now()


def test_one_that_answers_nothing_is_gone_in_the_end(clock: Clock) -> None:
    pulse = Pulse(raising(RuntimeError("busy")), clock)
    pulse.look_now()
    clock.now += SILENT_SECONDS
    pulse.look_now()
    clock.now += 1
    with pytest.raises(ClusterLost, match="it has not answered for 300 s"):
        pulse.look_now()


def test_whoever_has_not_asked_for_long_finds_it_as_it_is(clock: Clock) -> None:
    pulse = Pulse(alive, clock)
    pulse.look_now()
    clock.now += 100 * SILENT_SECONDS
    pulse.demand()
    pulse.look_now()


def test_a_question_that_is_never_answered_is_left_behind() -> None:
    never = threading.Event()
    with pytest.raises(TimeoutError):
        answer_within(0.01, never.wait)
    never.set()
    assert answer_within(PATIENCE_SECONDS, lambda: 3) == 3
    with pytest.raises(KeyError):
        answer_within(PATIENCE_SECONDS, lambda: {}["x"])
