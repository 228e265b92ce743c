"""What comes back from the service: collected, postponed, failed, tried again, stopped, done anew."""

import pytest

from batch_assets.ledger.budget import Budget
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State, SubmissionState
from batch_assets_tests.ledger.conftest import Clock
from batch_assets_tests.ledger.helpers import (
    DONE,
    ELSEWHERE,
    KEYS,
    ME,
    SCOPE,
    adopts,
    ended,
    postponed_until,
    queue,
    state,
    take,
    waits,
)

KEY = KEYS[0]
S = SubmissionState


def test_a_void_collection_is_offered_again(ledger: Ledger, clock: Clock) -> None:
    ended(ledger, state=S.PARTIAL)
    old = ledger.claim("texts", KEY, ELSEWHERE)
    assert old is not None
    assert ledger.finished("texts", 10) == []
    clock.now += 61
    assert [row.key for row in ledger.finished("texts", 10)] == [KEY]
    new = ledger.claim("texts", KEY, ME)
    assert new is not None
    assert (new.before, new.attempt, state(ledger)) == (State.PARTIAL, 1, State.COLLECTING)
    assert not ledger.enqueue(old, "batch", 3, 30, 0.1)
    assert not ledger.release(old)
    assert ledger.release(new)
    assert state(ledger) == State.PARTIAL


def test_a_remainder_is_queued_again(ledger: Ledger) -> None:
    ended(ledger)
    claim = ledger.claim("texts", KEY, ME)
    assert claim is not None
    assert ledger.settle("texts", KEY, 1, 0.5)
    assert ledger.enqueue(claim, "batch", 3, 30, 0.1)
    assert not ledger.enqueue(claim, "batch", 3, 30, 0.1)
    row = ledger.shard("texts", KEY)
    assert row is not None
    assert (row.state, row.job, row.attempt) == (State.QUEUED, 2, 1)
    again = take(ledger)
    assert [(job.fence, job.records) for job in again.jobs] == [(2, 3)]
    row = ledger.shard("texts", KEY)
    assert row is not None
    assert row.attempt == 2


def test_a_postponed_collection_waits(ledger: Ledger, clock: Clock) -> None:
    ended(ledger)
    claim = ledger.claim("texts", KEY, ME)
    assert claim is not None
    assert postponed_until(ledger, clock.now) is None
    assert ledger.postpone(claim, clock.now + 60)
    assert ledger.finished("texts", 10) == []
    assert postponed_until(ledger, clock.now) == clock.now + 60
    clock.now += 60
    assert [row.key for row in ledger.finished("texts", 10)] == [KEY]
    assert postponed_until(ledger, clock.now) is None


def test_failed_collections_pause_longer_and_longer_and_give_up(ledger: Ledger, clock: Clock) -> None:
    ended(ledger, state=S.EXPIRED)
    for pause in (30, 60):
        claim = ledger.claim("texts", KEY, ME)
        assert claim is not None
        assert ledger.fail(claim, "no output", 3) == State.EXPIRED
        assert postponed_until(ledger, clock.now) == clock.now + pause
        clock.now += pause
    claim = ledger.claim("texts", KEY, ME)
    assert claim is not None
    assert claim.attempt == 1
    assert ledger.fail(claim, "no output", 3) == State.EXHAUSTED
    assert ledger.finished("texts", 10) == []
    assert ledger.retry("texts") == [KEY]
    row = ledger.shard("texts", KEY)
    assert row is not None
    assert (row.state, row.attempt, row.collections) == (State.EXPIRED, 0, 0), "paid for: to be collected"
    assert [row.key for row in ledger.finished("texts", 10)] == [KEY]


def test_failed_preparations_give_up(ledger: Ledger) -> None:
    ledger.set_deferred("texts", True)
    ledger.move("texts", [KEY], [State.PLANNED], State.PREPARED)
    for expected in (State.PREPARED, State.EXHAUSTED):
        claim = ledger.claim_preparation("texts", KEY, ME)
        assert claim is not None
        assert ledger.claim_preparation("texts", KEY, ME) is None
        assert ledger.fail(claim, "no bucket", 2) == expected
    row = ledger.shard("texts", KEY)
    assert row is not None
    assert (row.error, row.attempt) == ("no bucket", 0)
    assert ledger.retry("texts") == [KEY]
    claim = ledger.claim_preparation("texts", KEY, ELSEWHERE)
    assert claim is not None
    assert ledger.release(claim)
    row = ledger.shard("texts", KEY)
    assert row is not None
    assert (row.state, row.holder, row.attempt, row.collections) == (State.PREPARED, None, 0, 0)


def test_on_demand(ledger: Ledger) -> None:
    ended(ledger)
    claim = ledger.claim("texts", KEY, ME)
    assert claim is not None
    assert ledger.enqueue(claim, "on_demand", 3, 30, 0.25)
    assert [row.key for row in ledger.finished("texts", 10)] == [KEY]
    ledger.settle("texts", KEY, 1, 1.0)
    calling = ledger.claim("texts", KEY, ME)
    assert calling is not None
    assert (calling.before, calling.attempt, state(ledger)) == (State.READY, 2, State.RUNNING)
    assert "budget reached" in str(ledger.reserve("texts", KEY, 2, Budget(1.2)))
    assert ledger.money("texts").blocked_kind == "budget"
    assert ledger.reserve("texts", KEY, 2, Budget(1.25)) is None
    assert ledger.reserve("texts", KEY, 2, Budget(1.25)) is None, "reserved once"
    assert ledger.money("texts").held_usd == 0.25
    assert ledger.money("texts").blocked is None
    assert ledger.release(calling)
    assert [row.key for row in ledger.finished("texts", 10)] == [KEY]
    assert ledger.stop("texts") == [KEY]
    assert ledger.start_again("texts") == [KEY]
    calling = ledger.claim("texts", KEY, ME)
    assert calling is not None
    assert calling.attempt == 2
    assert ledger.settle("texts", KEY, 2, 0.125)
    assert ledger.finish(calling, **DONE)
    assert ledger.money("texts").spent_usd == 1.125
    with pytest.raises(LookupError, match="no job 9"):
        ledger.reserve("texts", KEY, 9, Budget())


def test_stop_and_start_again(ledger: Ledger) -> None:
    queue(ledger, KEYS[:3])
    running = take(ledger)
    ledger.submitted(running.token, "arn:1")
    assert ledger.stop("texts") == KEYS[1:3]
    assert waits(ledger) == "empty"
    assert ledger.observe(running.token, S.STOPPED) == [KEY]
    assert ledger.finished("texts", 10) == [], "not while the pipeline is to stop"
    assert ledger.claim("texts", KEYS[1], ME) is None
    ledger.clear_stop("texts")
    assert ledger.start_again("texts") == KEYS[1:3], "nothing is uploaded twice"
    assert state(ledger) == State.STOPPED
    assert [row.key for row in ledger.finished("texts", 10)] == [KEY]
    claim = ledger.claim("texts", KEY, ME)
    assert claim is not None
    assert claim.before is State.STOPPED
    assert ledger.release(claim)
    assert state(ledger) == State.STOPPED
    assert [take(ledger).jobs[0].shard for _ in range(2)] == KEYS[1:3]


def test_recompute_begins_with_rendering(ledger: Ledger) -> None:
    ended(ledger)
    claim = ledger.claim("texts", KEY, ME)
    assert claim is not None
    ledger.finish(claim, **DONE)
    assert ledger.recompute("texts", [KEY], keep=True) == [KEY]
    row = ledger.shard("texts", KEY)
    assert row is not None
    assert (row.state, row.job, row.keep_fence, row.attempt) == (State.PREPARED, None, 2, 0)
    adopts(ledger, KEY, fence=9)
    assert ledger.recompute("texts", [KEY]) == [KEY]
    row = ledger.shard("texts", KEY)
    assert row is not None
    assert (row.state, row.keep_fence) == (State.PREPARED, None)


def test_the_commit_whose_rows_are_kept_is_that_of_the_marker(ledger: Ledger) -> None:
    ended(ledger)
    for _ in range(2):
        claim = ledger.claim("texts", KEY, ME)
        assert claim is not None
        ledger.release(claim)
    assert adopts(ledger, KEY, fence=2)
    ledger.recompute("texts", [KEY], keep=True)
    row = ledger.shard("texts", KEY)
    assert row is not None
    assert (row.fence, row.keep_fence) == (3, 2)


def test_from_in_place_to_deferred_and_back(ledger: Ledger) -> None:
    ledger.move("texts", KEYS, [State.PLANNED], State.PREPARED)
    ledger.move("texts", KEYS[:2], [State.PREPARED], State.READY)
    assert ledger.finished("texts", 10) == []
    ledger.set_deferred("texts", True)
    assert ledger.counts("texts") == {State.PREPARED: 5}
    queue(ledger, KEYS[:2])
    rendering = ledger.claim_preparation("texts", KEYS[2], ELSEWHERE)
    assert rendering is not None
    ledger.set_scope(SCOPE, slots=1)
    ledger.set_deferred("texts", False)
    assert ledger.counts("texts") == {State.READY: 2, State.PREPARED: 3}
    assert not ledger.enqueue(rendering, "batch", 1, 1, 1.0)
    assert ledger.move("texts", KEYS, [State.PREPARED], State.READY) == KEYS[2:]
    assert waits(ledger) == "empty"
