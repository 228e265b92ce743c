"""Budgets: reserved before anything is paid, never passed, and raised to go on."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_assets.control.shard_result import Result
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.sites import Site, assert_whole, make_site

Rehearse = Callable[..., Rehearsal]
SHARDS = 4
STORM: dict[str, Any] = {
    "jobs": {"partial": 0.3, "all_records_fail": 0.1},
    "records": {"throttled": 0.2, "bad_output": 0.1},
    "output": {"cut_tail": 0.5, "absent": 0.1, "absent_manifest": 0.2},
    "calls": {"lost_responses": 0.2},
}


def bound_of_all(site: Site) -> float:
    """The most that all first jobs can cost, in USD, by a run that submits none."""
    site.rehearsal.change(calls={"throttled": 1})
    site.upload()
    jobs = [site.ledger.job("texts", row.key, row.job) for row in site.rows()]
    site.rehearsal.change(calls={"throttled": 0})
    return sum(job.bound_usd for job in jobs if job is not None)


def spend(site: Site, budget: float) -> bool:
    """Run until all is done or nothing more fits; whether it was the budget that ended it."""
    pipeline = site.plan()
    quiet = 0
    while not site.done():
        turn, results = site.step(pipeline)
        money = site.ledger.money("texts")
        assert money.spent_usd + money.held_usd <= budget + 1e-12
        assert site.billed() <= budget + 1e-12, "the service was paid more than the budget"
        moved = any(result.result is not Result.NOT_READY for result in results)
        busy = moved or turn.started or turn.ended or any(job.active for job in site.rehearsal.jobs)
        quiet = 0 if busy else quiet + 1
        if quiet > 12 and money.blocked_kind == "budget":
            return True
        assert quiet < 50, f"no end: {site.states()}, {money}"
    return False


@pytest.mark.parametrize("seed", range(2))
def test_no_budget_is_ever_passed(rehearse: Rehearse, tmp_path: Path, seed: int) -> None:
    rehearsal = rehearse(seed=seed, **STORM)
    chance = random.Random(seed)
    site = make_site(rehearsal, tmp_path, SHARDS, executor={"max_attempts": 9})
    bound = bound_of_all(site)
    # Raised step by step until it suffices.
    budget = bound * chance.uniform(0.1, 0.4)
    reached = 0
    while spend(site.with_executor(budget_usd=budget), budget):
        reached += 1
        budget += bound * chance.uniform(0.1, 0.6)
    assert reached
    assert_whole(site, SHARDS)
    assert site.spent() >= site.billed() * 0.999


def test_what_runs_is_collected_and_the_words_say_what_to_do(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_site(rehearse(), tmp_path, SHARDS)
    bound = bound_of_all(site)
    # What a job costs is about a tenth of what it may cost.
    poor = site.with_executor(budget_usd=bound * 0.3)
    assert spend(poor, bound * 0.3)
    states = site.states()
    assert set(states) == {"collected", "queued"}
    money = site.ledger.money("texts")
    assert money.held_usd == 0
    assert money.spent_usd == pytest.approx(site.billed())
    assert "budget reached" in (money.blocked or "")
    assert "raise budget_usd" in (money.blocked or "")
    rich = site.with_executor(budget_usd=bound)
    assert not spend(rich, bound)
    assert_whole(rich, SHARDS)
    assert site.ledger.money("texts").blocked is None


def test_calls_one_by_one_keep_the_budget_too(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_site(rehearse(jobs={"partial": 1}), tmp_path, 2, executor={"min_records": 12})
    bound = bound_of_all(site)
    pipeline = site.first_round()
    site.collect(pipeline)
    spent = site.spent()
    assert 0 < spent < bound
    poor = site.with_executor(budget_usd=spent * 1.0001)
    assert spend(poor, spent * 1.0001)
    assert site.rehearsal.server.books.on_demand.records == 0
    rich = site.with_executor(budget_usd=bound * 3)
    assert not spend(rich, bound * 3)
    assert_whole(rich, 2)


def test_without_a_price_there_is_no_budget(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_site(rehearse(), tmp_path, 2, executor={"prices": {"input": 5.0}, "budget_usd": 1000.0})
    site.run()
    assert_whole(site, 2)
    assert site.spent() == pytest.approx(site.billed() * 5.0 / 0.01)
