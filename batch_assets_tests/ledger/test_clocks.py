"""Clocks that are wrong, and hosts that have one name: no live claim is taken, and none lasts for ever."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from batch_assets.ledger.ledger import Ledger
from batch_assets.retry_policy import BETWEEN_STEPS_SECONDS, RUN_SECONDS
from batch_assets_tests.ledger.conftest import Clock
from batch_assets_tests.ledger.helpers import (
    DONE,
    ELSEWHERE,
    KEYS,
    ME,
    both_databases,
    claimed,
    make_ready,
    planned,
)

KEY = KEYS[0]
DAY = 86_400.0
TWIN = replace(ME, boot_id="another-boot", pid=2**22 - 1)
"""A process of another machine that has this one's name, and no process of that number here."""
Opened = Callable[..., Ledger]


@both_databases
def test_a_machine_of_the_same_name_keeps_what_it_holds(ledger: Ledger, clock: Clock) -> None:
    claim = claimed(ledger, holder=TWIN)
    assert ledger.lease("merge:texts", TWIN) == 1
    assert ledger.claim("texts", KEY, ME) is None
    assert ledger.lease("merge:texts", ME) is None
    clock.now += 61
    assert ledger.claim("texts", KEY, ME) is not None, "as ever, where it is silent for so long"
    assert not ledger.finish(claim, **DONE)


@both_databases
def test_a_run_on_a_machine_of_the_same_name_is_dead_when_it_is_silent_for_long(
    ledger: Ledger, clock: Clock
) -> None:
    """Minutes where it was to beat, as before a reboot in the middle of a step; an hour between two of its steps."""
    ledger.note_run("there", TWIN, "texts")
    for beat in (lambda: ledger.heartbeat(TWIN), lambda: ledger.note_run("there", TWIN, "texts")):
        clock.now += RUN_SECONDS - 1
        assert ledger.dead_runs(10) == []
        beat()
    ledger.note_step_end("there")
    clock.now += BETWEEN_STEPS_SECONDS - 1
    assert ledger.dead_runs(10) == []
    ledger.heartbeat(TWIN)
    clock.now += RUN_SECONDS
    assert RUN_SECONDS <= 600
    assert ledger.dead_runs(10) == ["there"]


@pytest.mark.parametrize("ahead", [61.0, DAY])
def test_postgresqls_clock_counts_not_that_of_a_host_which_is_ahead(
    postgresql_url: str, opened: Opened, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    ledger = planned(opened(postgresql_url))
    claim = claimed(ledger, holder=ELSEWHERE)
    assert ledger.lease("merge:texts", ELSEWHERE) == 1
    right = time.time()
    monkeypatch.setattr(time, "time", lambda: right + ahead)
    there = opened(postgresql_url)
    assert there.claim("texts", KEY, ME) is None
    assert there.lease("merge:texts", ME) is None
    assert there.lease_holder("merge:texts") == ELSEWHERE
    assert abs(there.now() - ledger.now()) < ahead / 2
    assert there.finish(claim, **DONE)


@both_databases
def test_a_lease_taken_by_a_clock_that_was_ahead_ends_after_its_length(
    url: str, ledger: Ledger, clock: Clock, opened: Opened
) -> None:
    make_ready(ledger)
    clock.now += DAY
    assert ledger.claim("texts", KEY, ELSEWHERE) is not None
    assert ledger.claim("texts", KEYS[1], TWIN) is not None
    assert ledger.lease("merge:texts", ELSEWHERE) == 1
    clock.now -= DAY
    opened(url, clock=clock)
    assert ledger.claim("texts", KEY, ME) is None, "its holder may live"
    clock.now += 59
    ledger.heartbeat(TWIN)
    assert ledger.lease("merge:texts", ME) is None
    clock.now += 2
    assert ledger.claim("texts", KEY, ME) is not None
    assert ledger.lease("merge:texts", ME) == 2
    assert ledger.claim("texts", KEYS[1], ME) is None, "it has been renewed meanwhile"


@both_databases
def test_any_heartbeat_ends_the_leases_of_a_clock_that_was_ahead(ledger: Ledger, clock: Clock) -> None:
    clock.now += DAY
    claimed(ledger, holder=ELSEWHERE)
    clock.now -= DAY
    ledger.heartbeat(ME)
    clock.now += 61
    assert ledger.claim("texts", KEY, ME) is not None
