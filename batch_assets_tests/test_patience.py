"""How long what does not answer is waited for: pauses and silent tries count, work does not."""

import random

import pytest

from batch_assets import patience
from batch_assets.errors import LastingStorageError, StorageError
from batch_assets.patience import Patience, in_a_tick
from batch_assets.retry_policy import ANSWER_SECONDS, AWAY_SECONDS, TICK_SECONDS

AWAY = StorageError("s3://bucket/out: no answer")


class Clock:
    """Monotonic time that moves where the test says so, and by pauses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.paused = 1_000.0, 0.0
        monkeypatch.setattr(patience.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(random, "uniform", lambda low, high: high)

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.paused += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def ignore(sentence: str) -> None:
    pass


def test_an_hour_of_work_between_two_failures_is_no_wait(clock: Clock) -> None:
    patience = Patience(ignore, pause=clock.pause)
    for _ in range(5):
        patience.wait(AWAY)
        clock.now += 3_600
    assert clock.paused == 0.25 + 0.5 + 1 + 2 + 4


def fail_always(patience: Patience, clock: Clock, seconds: float) -> None:
    """Tries of so many seconds, none of which succeeds."""
    while True:
        patience.wait(AWAY)
        clock.now += seconds


def test_tries_that_always_fail_come_to_an_end_however_long_they_work(clock: Clock) -> None:
    began = clock.now
    with pytest.raises(LastingStorageError, match=r"no answer; waited 3\d\d s for it"):
        fail_always(Patience(ignore, pause=clock.pause), clock, 3_600)
    assert 7 <= (clock.now - began) // 3_600 <= AWAY_SECONDS / ANSWER_SECONDS


def test_a_try_that_gets_no_answer_is_waited_for_as_long_as_it_takes(clock: Clock) -> None:
    began = clock.now
    with pytest.raises(LastingStorageError, match="waited"):
        fail_always(Patience(ignore, pause=clock.pause), clock, 20)
    assert AWAY_SECONDS <= clock.now - began < AWAY_SECONDS + 20


def test_a_tick_waits_no_second_time_for_a_try_that_hangs(clock: Clock) -> None:
    with in_a_tick():
        patience = Patience(ignore, pause=clock.pause)
    patience.wait(AWAY)
    clock.now += TICK_SECONDS
    with pytest.raises(LastingStorageError):
        patience.wait(AWAY)


def test_what_lasts_is_raised_as_it_is(clock: Clock) -> None:
    lasting = LastingStorageError("the disk is full")
    with pytest.raises(LastingStorageError) as raised:
        Patience(ignore, pause=clock.pause).wait(lasting)
    assert raised.value is lasting and clock.paused == 0
