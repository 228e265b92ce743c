"""What may be submitted of a pipeline whose jobs fail as a whole: each job counts once, and settings once."""

from typing import Any

import pytest

from batch_assets.ledger.budget import Budget
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import BreakerRow, WholeFailure
from batch_assets.ledger.states import BreakerState
from batch_assets_tests.ledger.conftest import Clock
from batch_assets_tests.ledger.helpers import KEYS, ME, adopts, ended, planned, queue

COUNTING, PROBING, OPEN = BreakerState
OLD, NEW = "digest-of-old", "digest-of-new"


def fails(ledger: Ledger, key: str, trip_at: int = 2, **fields: Any) -> BreakerRow | None:
    """The shard's first job fails as a whole, alone in its submission unless `jobs` says otherwise."""
    told: dict[str, Any] = {
        "jobs": 1,
        "alike": "no access",
        "message": "no access",
        "claimed_at": 0.0,
        "settings": OLD,
    }
    return ledger.failed_as_a_whole("texts", WholeFailure(key, 1, **{**told, **fields}), trip_at)


def commit(ledger: Ledger, key: str, embedded: int) -> None:
    ended(ledger, key)
    claim = ledger.claim("texts", key, ME)
    assert claim is not None
    assert ledger.finish(claim, fingerprint="f1", embedded=embedded, rejected=2, failed=1, tokens=10)


def state_of(ledger: Ledger) -> BreakerState | None:
    row = ledger.breaker("texts")
    return None if row is None else row.state


def test_a_job_counts_once_however_often_it_is_judged(ledger: Ledger) -> None:
    queue(ledger, KEYS)
    for key in (KEYS[0], KEYS[1], KEYS[0], KEYS[1], KEYS[0]):
        fails(ledger, key)
    row = ledger.breaker("texts")
    assert row is not None and (row.state, row.failures) == (PROBING, 2)
    fails(ledger, KEYS[2])
    assert state_of(ledger) is OPEN


def test_a_job_that_was_counted_before_others_did_well_begins_nothing(ledger: Ledger) -> None:
    queue(ledger, KEYS[:1])
    fails(ledger, KEYS[0], trip_at=1)
    ledger.close_breaker("texts")
    assert fails(ledger, KEYS[0], trip_at=1) is None
    assert state_of(ledger) is None


@pytest.mark.parametrize("trip_at", [1, 2])
def test_two_processes_with_different_settings_do_not_probe_for_ever(
    ledger: Ledger, clock: Clock, trip_at: int
) -> None:
    queue(ledger, KEYS)
    fails(ledger, KEYS[0], trip_at)
    for key in KEYS[1:]:
        for settings in (OLD, NEW, OLD):
            clock.now += 1
            ledger.probe_anew("texts", settings)
        clock.now += 1
        fails(ledger, key, trip_at, claimed_at=clock.now)
    assert state_of(ledger) is OPEN
    assert not ledger.probe_anew("texts", NEW), "it was tried"
    assert not ledger.probe_anew("texts", OLD)
    assert ledger.probe_anew("texts", "digest-of-a-third")
    assert state_of(ledger) is PROBING


def test_jobs_of_one_array_end_the_others_after_many_failures_only(ledger: Ledger) -> None:
    ledger.add_shards("texts", 1, [(f"g0001-1{number:04d}", 9 + number, 100, 5_000) for number in range(99)])
    keys = [row.key for row in ledger.shards("texts")]
    queue(ledger, keys)
    assert len(keys) > 100
    for key in keys[:99]:
        fails(ledger, key, jobs=1_000)
    assert state_of(ledger) is PROBING
    fails(ledger, keys[99], jobs=1_000)
    assert state_of(ledger) is OPEN
    row = fails(ledger, keys[100], jobs=1_000)
    assert row is not None and row.failures == 101, "what is under way may be a larger one"


def test_the_probe_opens_it_however_many_jobs_it_has(ledger: Ledger, clock: Clock) -> None:
    queue(ledger, KEYS)
    for key in KEYS[:3]:
        fails(ledger, key, jobs=3)
    assert state_of(ledger) is PROBING
    fails(ledger, KEYS[3], jobs=3, claimed_at=clock.now + 1)
    assert state_of(ledger) is OPEN


def test_when_a_shard_did_well_is_known_however_many_changes_follow(ledger: Ledger, clock: Clock) -> None:
    assert not ledger.did_well_since("texts", clock.now)
    commit(ledger, KEYS[0], embedded=0)
    assert not ledger.did_well_since("texts", clock.now), "no record of it did"
    commit(ledger, KEYS[1], embedded=97)
    more = [(f"g0001-1{number:04d}", 9 + number, 100, 5_000) for number in range(1_200)]
    ledger.add_shards("texts", 1, more)
    assert ledger.did_well_since("texts", clock.now)
    assert not ledger.did_well_since("texts", clock.now + 1)
    assert not planned(ledger, "/another").did_well_since("texts", clock.now)


def test_only_what_this_ledger_has_seen_computed_did_well(ledger: Ledger, clock: Clock) -> None:
    assert adopts(ledger, KEYS[0], fence=1), "as after a lost ledger"
    assert not ledger.did_well_since("texts", clock.now)
    ended(ledger, KEYS[1])
    assert adopts(ledger, KEYS[1], fence=1), "as a worker commits"
    assert ledger.did_well_since("texts", clock.now)


def test_a_pipeline_that_has_jobs_at_no_service_any_more_waits_for_none(ledger: Ledger) -> None:
    queue(ledger, KEYS[:2])
    for key in KEYS[:2]:
        fails(ledger, key, trip_at=1)
    assert ledger.money("texts").blocked_kind == "failing"
    ledger.set_deferred("texts", False)
    assert state_of(ledger) is None and ledger.money("texts").blocked is None


def test_a_budget_is_told_by_its_own_words_beside_an_open_breaker(ledger: Ledger) -> None:
    queue(ledger, KEYS[:2])
    for key in KEYS[:2]:
        fails(ledger, key, trip_at=1)
    assert ledger.money("texts").blocked == "no access"
    assert str(ledger.reserve("texts", KEYS[0], 1, Budget(0.5))).startswith("budget reached: ")
