"""Result files that are late, absent, cut, doubled, garbled, foreign or wrong: each record comes out once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_assets.control.shard_result import Result
from batch_assets.ledger.states import State
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.sites import PER_SHARD, assert_whole, make_site

Rehearse = Callable[..., Rehearsal]
SHARDS = 2


@pytest.mark.parametrize("what", ["late", "late_manifest"])
def test_what_is_late_is_waited_for(rehearse: Rehearse, tmp_path: Path, what: str) -> None:
    faults = {what: 1, "late_seconds": (10**6, 10**6)} | ({"cut_tail": 1} if what == "late_manifest" else {})
    site = make_site(rehearse(output=faults), tmp_path, SHARDS, executor={"poll_seconds": 5})
    pipeline = site.first_round()
    results = site.collect(pipeline)
    assert [result.result for result in results] == [Result.NOT_READY] * SHARDS
    assert set(site.states()) == {State.SUCCEEDED}
    assert site.ledger.finished("texts", 10) == [], "asked again without a pause"
    site.rehearsal.change(output={what: 0, "cut_tail": 0})
    site.rehearsal.server.set_clock(advance=10**6)
    site.run()
    rows = site.publish(site.open())
    assert len(rows) == SHARDS * PER_SHARD
    if what == "late":
        assert len(site.rehearsal.jobs) == SHARDS
        assert_whole(site, SHARDS)


def test_a_manifest_that_never_comes_does_not_hold_up_whole_results(
    rehearse: Rehearse, tmp_path: Path
) -> None:
    site = make_site(rehearse(output={"absent_manifest": 1}), tmp_path, SHARDS)
    pipeline = site.first_round()
    assert [result.result for result in site.collect(pipeline)] == [Result.COLLECTED] * SHARDS
    assert_whole(site, SHARDS)
    assert site.spent() == pytest.approx(site.billed())


def test_output_that_never_comes_is_asked_for_again(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_site(rehearse(output={"absent": 1}), tmp_path, SHARDS)
    pipeline = site.first_round()
    assert [result.result for result in site.collect(pipeline)] == [Result.NOT_READY] * SHARDS
    site.rehearsal.change(output={"absent": 0})
    site.clock.ahead += 120
    results = site.collect(pipeline)
    assert [result.continued.reasons for result in results if result.continued] == [
        {"missing_result": PER_SHARD}
    ] * SHARDS
    site.run()
    assert_whole(site, SHARDS)
    # What came to nothing was paid for all the same, and the budget must know.
    assert site.spent() >= site.billed()


def test_a_cut_last_line_costs_that_record_alone(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_site(rehearse(output={"cut_tail": 1}), tmp_path, SHARDS)
    pipeline = site.first_round()
    site.rehearsal.change(output={"cut_tail": 0})
    results = site.collect(pipeline)
    assert [result.continued.again for result in results if result.continued] == [1] * SHARDS
    site.run()
    assert_whole(site, SHARDS)
    assert site.rehearsal.sent() == SHARDS * (PER_SHARD + 1)
    assert site.rehearsal.server.books.on_demand.records == SHARDS


@pytest.mark.parametrize(
    "faults",
    [
        {"output": {"doubled_lines": 1}},
        {"output": {"foreign_lines": 1}},
        {"output": {"garbled_lines": 0.5}},
        {"output": {"missing_lines": 0.5}},
        {"output": {"shuffled": False}},
        {"records": {"bad_output": 0.5}},
        {"records": {"throttled": 0.5}},
        {"records": {"internal": 0.5, "code_as_text": 1}},
        {"records": {"timeout": 0.5, "bare_errors": 1}},
        {"records": {"expired": 0.5}},
        {"output": {"doubled_lines": 0.5, "foreign_lines": 0.3, "garbled_lines": 0.2, "cut_tail": 0.5},
         "records": {"throttled": 0.2, "bad_output": 0.2}},
    ],
    ids=lambda faults: "-".join(name for part in faults.values() for name in part),
)  # fmt: skip
def test_whatever_befalls_lines_and_records(
    rehearse: Rehearse, tmp_path: Path, faults: dict[str, Any]
) -> None:
    site = make_site(rehearse(**faults), tmp_path, SHARDS)
    site.first_round()
    calm = {part: dict.fromkeys(rates, 0) for part, rates in faults.items()}
    site.rehearsal.change(**calm)
    site.run()
    assert_whole(site, SHARDS)
    assert site.spent() == pytest.approx(site.billed(), rel=1e-3)


def test_forbidden_records_fail_for_good(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_site(rehearse(records={"forbidden": 0.5}, seed=3), tmp_path, 1, max_failed_fraction=1.0)
    site.run()
    [row] = site.rows()
    assert 0 < row.failed < PER_SHARD
    assert len(site.rehearsal.jobs) == 1


def test_the_next_attempt_holds_only_what_is_left(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_site(rehearse(records={"throttled": 0.5}, seed=3), tmp_path, SHARDS)
    pipeline = site.first_round()
    site.rehearsal.change(records={"throttled": 0})
    again = {result.key: result.continued.again for result in site.collect(pipeline) if result.continued}
    assert 0 < sum(again.values()) < SHARDS * PER_SHARD
    site.run()
    assert_whole(site, SHARDS)
    assert site.rehearsal.sent() == SHARDS * PER_SHARD + sum(again.values())
    attempts = {row.key: row.attempt for row in site.rows()}
    assert attempts == {key: 1 + (key in again) for key in attempts}
