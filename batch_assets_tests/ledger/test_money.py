"""Budgets that are never passed, and books that leave no remainder."""

import pytest

from batch_assets.ledger.budget import Budget
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import SubmissionRules, Waiting
from batch_assets.ledger.states import SubmissionState
from batch_assets_tests.ledger.conftest import Clock
from batch_assets_tests.ledger.helpers import (
    DONE,
    KEYS,
    ME,
    SCOPE,
    named,
    queue,
    take,
    waits,
)

KEY = KEYS[0]
S = SubmissionState


def test_a_budget_is_never_passed(ledger: Ledger) -> None:
    rules = {"texts": SubmissionRules(budget=Budget(2.5))}
    queue(ledger, KEYS)
    first = take(ledger, rules)
    take(ledger, rules)
    answer = ledger.claim_submission(SCOPE, rules, named)
    said = (
        "budget reached: 0.00 USD are spent, 2.00 USD are reserved by jobs that run, the next needs up to "
        "1.00 USD, and budget_usd is 2.50; raise budget_usd to go on"
    )
    assert answer == Waiting("budget", message=f"pipeline texts: {said}")
    money = ledger.money("texts")
    assert (money.blocked, money.blocked_kind) == (said, "budget")
    row = ledger.pipeline("texts")
    assert row is not None
    assert (row.blocked, row.held_usd, row.spent_usd, row.deferred) == (said, 2.0, 0.0, True)
    ledger.observe(first.token, S.SUCCEEDED)
    assert ledger.settle("texts", KEY, 1, 0.5)
    third = take(ledger, rules)
    money = ledger.money("texts")
    assert (money.held_usd, money.spent_usd, money.blocked) == (2.0, 0.5, None)
    assert ledger.refused(third.token, "no")
    assert waits(ledger, {"texts": SubmissionRules(budget=Budget(2.0))}) == "budget"
    assert take(ledger, {"texts": SubmissionRules(budget=Budget(99.0))}).token == third.token, "raised"


def test_one_that_has_no_money_lets_others_pass(ledger: Ledger) -> None:
    ledger.attach("images", "/out", 1)
    ledger.add_shards("images", 1, [(KEY, 0, 10, 10)])
    queue(ledger, KEYS[:1])
    queue(ledger, [KEY], pipeline="images", bound_usd=0.003)
    rules = {
        "texts": SubmissionRules(priority=5, budget=Budget(0.5)),
        "images": SubmissionRules(budget=Budget(0.003)),
    }
    assert take(ledger, rules).pipeline == "images"
    assert ledger.money("texts").blocked_kind == "budget"
    assert waits(ledger, rules) == "budget"
    ledger.clear_blocked("texts")
    assert ledger.money("texts").blocked is None


def test_a_refusal_is_told_before_a_budget(ledger: Ledger) -> None:
    queue(ledger, KEYS[:2])
    claim = take(ledger)
    ledger.reserve("texts", KEYS[1], 1, Budget(9.0))
    ledger.refused(claim.token, "no", block="not entitled")
    assert "budget reached" in str(ledger.reserve("texts", KEY, 1, Budget(1.0)))
    assert ledger.money("texts").blocked == "not entitled"


def test_many_small_amounts_leave_no_remainder(ledger: Ledger) -> None:
    rules = {"texts": SubmissionRules(budget=Budget(0.5))}
    for round_ in range(3):
        queue(ledger, KEYS, bound_usd=0.1)
        for _ in KEYS:
            claim = take(ledger, rules)
            ledger.observe(claim.token, S.SUCCEEDED)
        assert ledger.money("texts").held_usd == pytest.approx(0.5, abs=1e-15)
        for key in KEYS:
            assert ledger.settle("texts", key, 2 * round_ + 1, 0.0)
            collecting = ledger.claim("texts", key, ME)
            assert collecting is not None
            assert ledger.finish(collecting, **DONE)
        assert ledger.money("texts").held_usd == 0.0
        ledger.recompute("texts", KEYS)


def test_what_cannot_be(ledger: Ledger) -> None:
    assert not ledger.settle("texts", KEY, 1, 1.0)
    with pytest.raises(LookupError, match="'unknown' is not attached"):
        ledger.money("unknown")
    claims = queue(ledger, [KEY])
    with pytest.raises(ValueError, match="0 records"):
        ledger.enqueue(claims[0], "batch", 0, 0, 1.0)


def test_calls_are_paced_over_all_processes(ledger: Ledger, clock: Clock) -> None:
    assert ledger.reserve_calls("calls", 30, 60) == clock.now
    assert ledger.reserve_calls("calls", 1, 60) == clock.now + 30
    assert ledger.reserve_calls("other", 1, 60) == clock.now
    clock.now += 100
    assert ledger.reserve_calls("calls", 1, 60) == clock.now
    assert ledger.scope("calls").slots is None


def test_an_observation_says_what_is_oldest_also_when_nothing_is(ledger: Ledger) -> None:
    ledger.set_scope(SCOPE, slots=5, observed_at=10.0, oldest_active=3.0)
    ledger.set_scope(SCOPE, slots=6)
    assert (ledger.scope(SCOPE).slots, ledger.scope(SCOPE).oldest_active) == (6, 3.0)
    ledger.set_scope(SCOPE, foreign_jobs=0, observed_at=20.0)
    scope = ledger.scope(SCOPE)
    assert (scope.slots, scope.foreign_jobs, scope.observed_at, scope.oldest_active) == (6, 0, 20.0, None)
    ledger.set_scope(SCOPE)
    assert ledger.scope(SCOPE) == scope


def test_a_notice_is_given_once(ledger: Ledger) -> None:
    assert ledger.notice_once("failed:1")
    assert not ledger.notice_once("failed:1")
    assert ledger.notice_once("failed:2")
