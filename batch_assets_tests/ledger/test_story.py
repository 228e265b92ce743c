"""A shard's story: each move that needs a reason leaves one, in its own transaction, and the newest stay."""

import pytest

from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import Adoption
from batch_assets.ledger.states import State
from batch_assets.ledger.story import KEPT_ENTRIES
from batch_assets.retry_policy import LOSSES_FORGIVEN, Cause
from batch_assets_tests.ledger.helpers import (
    DONE,
    KEYS,
    ME,
    both_databases,
    claimed,
    dead_process,
    make_ready,
    planned,
)

KEY = KEYS[0]


def told(ledger: Ledger, key: str = KEY) -> list[tuple[str, int, str]]:
    return [(one.event, one.attempt, one.reason) for one in ledger.story("texts", key)]


@both_databases
def test_failures_a_lost_machine_and_a_commit_are_told_with_what_was_decided(ledger: Ledger) -> None:
    planned(ledger)
    claim = claimed(ledger)
    assert ledger.fail(claim, "worker 7 was lost", 2, Cause.MACHINE_LOST) is State.READY
    again = ledger.claim("texts", KEY, ME)
    assert again is not None
    assert again.attempt == 1, "a lost machine costs no attempt"
    assert ledger.fail(again, f"shard {KEY}: bad luck", 2) is State.READY
    last = ledger.claim("texts", KEY, ME)
    assert last is not None
    assert ledger.finish(last, **DONE)
    assert told(ledger) == [
        ("began", 1, ""),
        ("machine lost", 1, "worker 7 was lost"),
        ("began", 1, ""),
        ("failed", 1, "bad luck"),
        ("began", 2, ""),
        ("collected", 2, "97 embedded, 2 rejected, 1 failed"),
    ]
    decided = [one.decision for one in ledger.story("texts", KEY)]
    assert f"lost machine 1 of {LOSSES_FORGIVEN} that cost no attempt" in decided[1]
    assert decided[3] == "attempt 1 of 2; tried again"


@both_databases
def test_giving_up_and_a_persons_retry_are_told(ledger: Ledger) -> None:
    planned(ledger)
    assert ledger.fail(claimed(ledger), "no \x00 luck", 1) is State.EXHAUSTED
    assert ledger.retry("texts") == [KEY]
    assert told(ledger)[1:] == [("failed", 1, "no \ufffd luck"), ("retried", 0, "ordered by a person")]
    assert ledger.story("texts", KEY)[1].decision == "attempt 1 of 1; given up, attempts are spent"


@both_databases
def test_a_long_story_keeps_its_newest_entries(ledger: Ledger) -> None:
    planned(ledger)
    make_ready(ledger, [KEY])
    for turn in range(KEPT_ENTRIES):
        claim = ledger.claim("texts", KEY, ME)
        assert claim is not None
        ledger.release(claim, f"turn {turn}")
    entries = ledger.story("texts", KEY)
    assert [one.number for one in entries] == list(range(KEPT_ENTRIES + 1, 2 * KEPT_ENTRIES + 1))
    assert entries[-1].reason == f"turn {KEPT_ENTRIES - 1}"
    assert told(ledger, KEYS[1]) == []


def test_who_is_gone_is_named_by_whoever_takes_over(ledger: Ledger) -> None:
    planned(ledger)
    gone = dead_process()
    claimed(ledger, holder=gone)
    assert ledger.claim("texts", KEY, ME) is not None
    assert told(ledger)[-1] == ("began", 2, f"taken over from {gone}, which is gone")


def test_a_lost_claim_adds_nothing_to_the_story(ledger: Ledger) -> None:
    planned(ledger)
    old = claimed(ledger, holder=dead_process())
    assert ledger.claim("texts", KEY, ME) is not None
    before = told(ledger)
    assert ledger.fail(old, "too late", 3) is State.RUNNING
    assert not ledger.release(old, "too late")
    assert told(ledger) == before


@pytest.mark.parametrize("reason", ["the manifest is late", None], ids=["same words", "other words"])
def test_waiting_again_and_again_is_told_once(ledger: Ledger, reason: str | None) -> None:
    planned(ledger)
    ledger.set_deferred("texts", True)
    ledger.move("texts", [KEY], [State.PLANNED], State.PREPARED)
    for turn in range(3):
        claim = ledger.claim_preparation("texts", KEY, ME)
        assert claim is not None
        ledger.postpone(claim, 0.0, reason or f"turn {turn}")
    assert [event for event, *_ in told(ledger)] == ["postponed"]


@both_databases
def test_a_rebuilt_ledger_begins_with_what_it_found_and_an_attached_root_forgets_the_old_story(
    ledger: Ledger,
) -> None:
    planned(ledger)
    assert ledger.adopt_all("texts", [Adoption(KEY, 3, "f1", 97, 2, 1, 1_000)]) == [KEY]
    assert told(ledger) == [("adopted", 0, "its commit marker was found under the output root")]
    ledger.attach("texts", "/elsewhere", 1)
    assert told(ledger) == []


def test_orders_to_many_shards_reach_each_ones_story(ledger: Ledger) -> None:
    planned(ledger)
    make_ready(ledger)
    assert ledger.stop("texts") == KEYS
    assert ledger.start_again("texts") == KEYS
    for key in KEYS:
        assert [event for event, *_ in told(ledger, key)] == ["stopped", "started again"]
