"""When a server is taken for ill, and how it is found to be well again."""

import math

from batch_assets.dispatch.availability import Availability
from batch_assets.retry_policy import (
    CALL_FIRST_PAUSE_SECONDS,
    CALL_LONGEST_PAUSE_SECONDS,
    CALLS_FAILED_IN_A_ROW,
)


class Clock:
    """Time that passes when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def ill() -> tuple[Availability, Clock]:
    clock = Clock()
    availability = Availability(clock)
    assert availability.failed(1, reached=False)
    return availability, clock


def test_a_well_server_takes_whatever_the_window_allows() -> None:
    availability = Availability(Clock())
    assert availability.is_well
    assert availability.room(10_000) == math.inf


def test_a_server_that_nobody_reaches_is_ill_at_once() -> None:
    availability, _ = ill()
    assert not availability.is_well
    assert availability.room(0) == 0


def test_many_failed_calls_in_a_row_make_it_ill() -> None:
    availability = Availability(Clock())
    for _ in range(CALLS_FAILED_IN_A_ROW - 1):
        assert not availability.failed(1, reached=True)
    assert availability.is_well
    assert availability.failed(1, reached=True)
    assert not availability.is_well


def test_with_many_in_flight_as_many_must_fail() -> None:
    availability = Availability(Clock())
    assert not any(availability.failed(100, reached=True) for _ in range(99))
    assert availability.failed(100, reached=True)


def test_an_answer_between_them_starts_the_count_anew() -> None:
    availability = Availability(Clock())
    for _ in range(10):
        for _ in range(CALLS_FAILED_IN_A_ROW - 1):
            assert not availability.failed(1, reached=True)
        assert not availability.answered(), "it was well all the time"
    assert availability.is_well


def test_after_a_pause_one_message_at_a_time_finds_out() -> None:
    availability, clock = ill()
    clock.now = CALL_FIRST_PAUSE_SECONDS
    assert availability.room(0) == 1
    assert availability.room(1) == 0
    assert availability.answered(), "it was ill until now"
    assert availability.room(500) == math.inf


def test_pauses_grow_up_to_the_longest() -> None:
    availability, clock = ill()
    pauses: list[float] = []
    for _ in range(40):
        before = clock.now
        while availability.room(0) == 0:
            clock.now += 0.25
        pauses.append(clock.now - before)
        assert not availability.failed(1, reached=True), "it was ill before"
    assert pauses == sorted(pauses)
    assert pauses[0] == CALL_FIRST_PAUSE_SECONDS
    assert pauses[-1] == CALL_LONGEST_PAUSE_SECONDS


def test_calls_that_were_under_way_lengthen_no_pause() -> None:
    availability, clock = ill()
    for _ in range(500):
        assert not availability.failed(500, reached=False)
    clock.now = CALL_FIRST_PAUSE_SECONDS
    assert availability.room(0) == 1


def test_once_well_its_next_illness_begins_with_the_first_pause() -> None:
    availability, clock = ill()
    for _ in range(5):
        clock.now += CALL_LONGEST_PAUSE_SECONDS
        availability.failed(1, reached=True)
    availability.answered()
    assert availability.failed(1, reached=False)
    clock.now += CALL_FIRST_PAUSE_SECONDS
    assert availability.room(0) == 1
