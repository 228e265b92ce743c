"""One live claim a shard, fences that only grow, and holders who find out that they are late."""

from dataclasses import replace

import pytest

from batch_assets.errors import ClaimLost
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import Adoption
from batch_assets.ledger.states import State, SubmissionState
from batch_assets_tests.ledger.conftest import Clock
from batch_assets_tests.ledger.helpers import (
    DONE,
    ELSEWHERE,
    KEYS,
    ME,
    adopts,
    both_databases,
    claimed,
    dead_process,
    holds,
    make_ready,
    state,
    submit,
)

pytestmark = both_databases

KEY = KEYS[0]


def test_the_life_of_a_shard(ledger: Ledger) -> None:
    make_ready(ledger)
    claim = ledger.claim("texts", KEY, ME, run_id="run-1")
    assert claim is not None
    assert (claim.fence, claim.attempt) == (1, 1)
    row = ledger.shard("texts", KEY)
    assert row is not None
    assert (row.state, row.holder, row.run_id, row.attempt) == (State.RUNNING, ME, "run-1", 1)
    assert holds(ledger, claim)
    assert ledger.begin_commit(claim)
    assert state(ledger) == State.COLLECTING
    assert ledger.finish(claim, **DONE)
    row = ledger.shard("texts", KEY)
    assert row is not None
    assert (row.state, row.holder, row.error) == (State.COLLECTED, None, None)
    assert (row.fingerprint, row.embedded, row.rejected, row.failed, row.tokens) == ("f1", 97, 2, 1, 1_000)
    assert not holds(ledger, claim)
    assert ledger.finish(claim, **DONE), "told twice"


def test_only_ready_shards_are_claimed(ledger: Ledger) -> None:
    assert ledger.claim("texts", KEY, ME) is None
    assert ledger.claim("texts", "g0009-00000", ME) is None
    claimed(ledger)
    assert ledger.claim("texts", KEY, ME) is None, "a process does not share a claim with itself"
    assert ledger.claim("texts", KEY, ELSEWHERE) is None


@pytest.mark.parametrize("collecting", [False, True])
def test_a_dead_holder_here_is_void_at_once(ledger: Ledger, collecting: bool) -> None:
    old = claimed(ledger, holder=dead_process())
    if collecting:
        assert ledger.begin_commit(old)
    new = ledger.claim("texts", KEY, ME)
    assert new is not None
    assert (new.fence, new.attempt) == (2, 2)
    assert state(ledger) == State.RUNNING
    assert not holds(ledger, old)
    assert not ledger.begin_commit(old)
    assert not ledger.finish(old, **DONE)
    assert not ledger.release(old)
    assert ledger.fail(old, "late", 3) == State.RUNNING
    assert holds(ledger, new)


def test_a_holder_elsewhere_is_void_when_its_lease_expires(ledger: Ledger, clock: Clock) -> None:
    old = claimed(ledger, holder=ELSEWHERE)
    clock.now += 50
    assert ledger.claim("texts", KEY, ME) is None
    assert ledger.heartbeat(ELSEWHERE) == 1
    clock.now += 59
    assert ledger.claim("texts", KEY, ME) is None
    clock.now += 2
    assert holds(ledger, old), "expired, but nobody took it: a late heartbeat keeps it"
    assert ledger.claim("texts", KEY, ME) is not None
    assert not ledger.finish(old, **DONE)
    assert ledger.heartbeat(ELSEWHERE) == 0


def test_a_failed_attempt_is_followed_by_others_until_they_are_spent(ledger: Ledger) -> None:
    make_ready(ledger, [KEY])
    for attempt in (1, 2, 3):
        claim = ledger.claim("texts", KEY, ME)
        assert claim is not None
        assert claim.attempt == attempt
        ended = ledger.fail(claim, "the model\x00said \ud800 no", max_attempts=3)
        assert ended == state(ledger) == (State.EXHAUSTED if attempt == 3 else State.READY)
    row = ledger.shard("texts", KEY)
    assert row is not None
    assert row.error == "the model\ufffdsaid ? no"
    assert row.holder is None
    assert ledger.claim("texts", KEY, ME) is None
    assert ledger.retry("texts", None) == [KEY]
    claim = ledger.claim("texts", KEY, ME)
    assert claim is not None
    assert (claim.attempt, claim.fence) == (1, 4)


def test_release_gives_the_attempt_back(ledger: Ledger) -> None:
    claim = claimed(ledger)
    assert ledger.release(claim)
    assert state(ledger) == State.READY
    assert not ledger.release(claim)
    again = ledger.claim("texts", KEY, ME)
    assert again is not None
    assert (again.attempt, again.fence) == (1, 2)


def test_a_superseded_shard_is_lost_to_its_holder(ledger: Ledger) -> None:
    claim = claimed(ledger)
    ledger.add_shards("texts", 1, [], superseded=[KEY, KEYS[1]])
    assert not ledger.begin_commit(claim)
    assert ledger.claim("texts", KEYS[1], ME) is None
    assert ledger.move("texts", [KEYS[1]], [State.PLANNED], State.PREPARED) == []
    assert [row.key for row in ledger.shards("texts")] == KEYS[2:]
    assert [row.key for row in ledger.shards("texts", superseded=True)] == KEYS
    assert ledger.totals("texts").planned == 300


def test_a_forgotten_shard_says_so(ledger: Ledger) -> None:
    claim = claimed(ledger)
    ledger.attach("texts", "s3://bucket/elsewhere", 1)
    assert not holds(ledger, claim)
    assert not ledger.finish(claim, **DONE)
    with pytest.raises(ClaimLost, match=KEY):
        ledger.fail(claim, "no", 3)


@pytest.mark.parametrize("seen", [None, SubmissionState.SUBMITTED, SubmissionState.RUNNING])
def test_a_shard_that_a_service_runs_cannot_be_claimed(ledger: Ledger, seen: SubmissionState | None) -> None:
    token = submit(ledger, [KEY])
    if seen is not None:
        assert ledger.observe(token, seen) == [KEY]
    assert state(ledger) == State(seen or "submitting")
    assert ledger.claim("texts", KEY, ME) is None
    assert ledger.claim_preparation("texts", KEY, ME) is None
    assert ledger.move("texts", [KEY], [state(ledger)], State.STOPPED) == []


# Adoption from commit markers


def test_a_marker_is_believed_whatever_the_ledger_knew(ledger: Ledger) -> None:
    assert adopts(ledger, KEY, fence=7)
    row = ledger.shard("texts", KEY)
    assert row is not None
    assert (row.state, row.fence, row.embedded) == (State.COLLECTED, 7, 97)
    assert adopts(ledger, KEY, fence=7)
    again = ledger.shard("texts", KEY)
    assert again == row, "believed twice changes nothing, not even the revision"
    assert not adopts(ledger, "g0009-00000", fence=1)


def test_a_marker_ends_the_claim_that_made_it_and_any_void_one(ledger: Ledger, clock: Clock) -> None:
    claim = claimed(ledger, holder=ELSEWHERE)
    assert adopts(ledger, KEY, fence=claim.fence)
    assert ledger.finish(claim, **DONE), "its own commit, seen by another before it could tell"
    ledger.recompute("texts", [KEY])
    late = ledger.claim("texts", KEY, ELSEWHERE)
    assert late is not None
    clock.now += 61
    assert adopts(ledger, KEY, fence=2)
    assert not holds(ledger, late)


def test_a_marker_does_not_end_a_newer_live_claim(ledger: Ledger) -> None:
    make_ready(ledger)
    for _ in range(2):
        claim = ledger.claim("texts", KEY, ELSEWHERE)
        assert claim is not None
        ledger.release(claim)
    claim = ledger.claim("texts", KEY, ELSEWHERE)
    assert claim is not None
    assert not adopts(ledger, KEY, fence=2)
    assert holds(ledger, claim)
    assert ledger.release(claim)
    mine = ledger.claim("texts", KEY, ME)
    assert mine is not None
    assert adopts(ledger, KEY, fence=2), "the holder itself finds the marker"
    row = ledger.shard("texts", KEY)
    assert row is not None
    assert row.fence == mine.fence


def test_an_older_marker_does_not_undo_a_newer_commit(ledger: Ledger) -> None:
    assert adopts(ledger, KEY, fence=5, fingerprint="new")
    assert not adopts(ledger, KEY, fence=3, fingerprint="old")
    row = ledger.shard("texts", KEY)
    assert row is not None
    assert row.fingerprint == "new"


def test_a_marker_older_than_the_order_to_compute_again_does_not_count(ledger: Ledger) -> None:
    adopts(ledger, KEY, fence=3)
    assert ledger.recompute("texts", KEYS) == [KEY]
    assert not adopts(ledger, KEY, fence=3)
    claim = ledger.claim("texts", KEY, ME)
    assert claim is not None
    assert (claim.fence, claim.attempt) == (4, 1)
    assert adopts(ledger, KEY, fence=4)


def test_many_markers_at_once(ledger: Ledger) -> None:
    many = [
        Adoption(key, place + 1, "f1", 90, 5, 5, None) for place, key in enumerate([*KEYS, "g0009-00000"])
    ]
    assert ledger.adopt_all("texts", many) == KEYS
    assert [row.fence for row in ledger.shards("texts")] == [1, 2, 3, 4, 5]
    assert ledger.totals("texts").embedded == 450


# Named leases and runs


def test_a_named_lease(ledger: Ledger, clock: Clock) -> None:
    assert ledger.lease("merge:texts", ELSEWHERE) == 1
    assert ledger.lease_holder("merge:texts") == ELSEWHERE
    assert ledger.lease("merge:texts", ME) is None
    assert ledger.lease("merge:other", ME) == 1
    clock.now += 30
    assert ledger.heartbeat(ELSEWHERE) == 1
    clock.now += 59
    assert ledger.lease("merge:texts", ME) is None
    clock.now += 2
    assert ledger.lease_holder("merge:texts") is None
    assert ledger.lease("merge:texts", ME) == 2
    ledger.release_lease("merge:texts", ELSEWHERE)
    assert ledger.lease_holder("merge:texts") == ME
    assert ledger.lease("merge:texts", ME) is None
    ledger.release_lease("merge:texts", ME)
    assert ledger.lease("merge:texts", ELSEWHERE, seconds=5) == 3
    clock.now += 6
    assert ledger.lease("merge:texts", ME) == 4


def test_a_named_lease_of_a_dead_process_is_void_at_once(ledger: Ledger) -> None:
    assert ledger.lease("model:cuda:0", dead_process()) == 1
    assert ledger.lease_holder("model:cuda:0") is None
    assert ledger.lease("model:cuda:0", ME) == 2


def test_runs_of_dead_processes(ledger: Ledger) -> None:
    gone = dead_process()
    for number in range(3):
        ledger.note_run(f"gone-{number}", gone, "texts")
    ledger.note_run("alive", ME, "texts")
    ledger.note_run("elsewhere", ELSEWHERE, "texts")
    ledger.note_run("gone-1", replace(ME), "texts")  # resumed by a living process
    assert ledger.dead_runs(10) == ["gone-0", "gone-2"]
    assert ledger.dead_runs(1) == ["gone-0"]
    ledger.forget_run("gone-0")
    assert ledger.dead_runs(10) == ["gone-2"]
