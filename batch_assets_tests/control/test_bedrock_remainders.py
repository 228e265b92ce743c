"""Fewer records than a job must have: called one by one, or pooled with others' into one submission."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batch_assets.ledger.states import State
from batch_assets_tests.command import some_records, write_records
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.sites import PER_SHARD, Site, assert_every_record_once, assert_whole, make_site

Rehearse = Callable[..., Rehearsal]


def pools(site: Site) -> list[int]:
    """How many jobs each pooled submission carried."""
    return [row.jobs for row in site.ledger.submissions(pipeline="texts") if row.jobs > 1]


@pytest.mark.parametrize("remainder", ["on_demand", "pool"])
def test_a_record_left_over_in_every_shard(rehearse: Rehearse, tmp_path: Path, remainder: str) -> None:
    shards = 6
    rehearsal = rehearse(output={"cut_tail": 1}, quotas={"concurrent_jobs": shards})
    site = make_site(rehearsal, tmp_path, shards, executor={"remainder": remainder})
    site.first_round()
    rehearsal.change(output={"cut_tail": 0})
    site.run()
    rows = assert_whole(site, shards)
    assert len(rows) == shards * PER_SHARD
    # Five make a job, and the sixth is alone.
    assert pools(site) == ([5] if remainder == "pool" else [])
    assert rehearsal.server.books.on_demand.records == (1 if remainder == "pool" else shards)
    assert len(rehearsal.jobs) == shards + (remainder == "pool")
    assert site.spent() == pytest.approx(site.billed(), rel=0.01)


def test_a_pool_that_can_never_fill_is_called_one_by_one(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(output={"cut_tail": 1})
    site = make_site(rehearsal, tmp_path, 2, executor={"remainder": "pool"})
    site.first_round()
    rehearsal.change(output={"cut_tail": 0})
    site.run()
    assert_whole(site, 2)
    assert rehearsal.server.books.on_demand.records == 2


def test_a_pool_of_which_one_member_fares_worse(rehearse: Rehearse, tmp_path: Path) -> None:
    shards = 6
    rehearsal = rehearse(output={"cut_tail": 1}, quotas={"concurrent_jobs": shards})
    site = make_site(rehearsal, tmp_path, shards, executor={"remainder": "pool", "max_attempts": 5})
    pipeline = site.first_round()
    rehearsal.change(output={"cut_tail": 0}, jobs={"partial": 1})
    site.collect(pipeline)
    site.run(until=lambda: len(rehearsal.jobs) > shards)
    rehearsal.change(jobs={"partial": 0})
    site.run()
    assert_whole(site, shards)


@pytest.mark.parametrize("remainder", ["on_demand", "pool"])
def test_shards_under_the_minimum_from_the_start(rehearse: Rehearse, tmp_path: Path, remainder: str) -> None:
    shards = 4
    rehearsal = rehearse(quotas={"min_records": PER_SHARD})
    site = make_site(rehearsal, tmp_path, shards, executor={"remainder": remainder}, max_failed_fraction=1)
    records = some_records(shards * PER_SHARD)
    for number in range(0, len(records), PER_SHARD):
        records[number]["text"] = ""
    write_records(tmp_path / "in.jsonl", records)
    site.run()
    rows = site.publish(site.open())
    assert_every_record_once(rows, [record for record in records if record["text"]])
    assert rehearsal.paid_twice() == 0
    assert site.spent() == pytest.approx(site.billed())
    called = rehearsal.server.books.on_demand.records
    if remainder == "on_demand":
        assert called == shards * (PER_SHARD - 1)
        assert rehearsal.jobs == []
    else:
        assert pools(site) == [2, 2]
        assert called == 0


@pytest.mark.parametrize("remainder", ["on_demand", "pool"])
def test_rejections_may_leave_too_few_or_none(rehearse: Rehearse, tmp_path: Path, remainder: str) -> None:
    rehearsal = rehearse()
    site = make_site(rehearsal, tmp_path, 3, executor={"remainder": remainder}, max_failed_fraction=1.0)
    records = some_records(3 * PER_SHARD)
    for number, record in enumerate(records):
        # The first shard has no valid record, the second three, the third all.
        if number < PER_SHARD or PER_SHARD + 3 <= number < 2 * PER_SHARD:
            record["text"] = " "
    write_records(tmp_path / "in.jsonl", records)
    site.run()
    assert set(site.states()) == {State.COLLECTED}
    rows = site.publish(site.open())
    assert_every_record_once(rows, [record for record in records if record["text"] != " "])
    assert [row.rejected for row in site.rows()] == [PER_SHARD, PER_SHARD - 3, 0]
    assert rehearsal.sent() == PER_SHARD + 3
    assert len(rehearsal.jobs) == 1


def test_calls_one_by_one_are_paced_and_survive_throttling(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(jobs={"partial": 1}, on_demand={"throttled": 0.4, "unavailable": 0.1}, seed=2)
    site = make_site(rehearsal, tmp_path, 2, executor={"min_records": PER_SHARD, "max_attempts": 40})
    site.run()
    assert_whole(site, 2)
    outcomes = rehearsal.server.books.calls["InvokeModel"]
    assert outcomes["ok"] == rehearsal.server.books.on_demand.records > 0
    assert outcomes["ThrottlingException"] + outcomes["ServiceUnavailableException"] > 0


def test_a_pool_beside_the_output_is_known_again_after_a_lost_ledger(
    rehearse: Rehearse, tmp_path: Path
) -> None:
    shards = 5
    rehearsal = rehearse(output={"cut_tail": 1}, quotas={"concurrent_jobs": shards})
    root = {"root": f"s3://{rehearsal.bucket}/texts/out"}
    pooled = {"remainder": "pool", "staging": None}
    site = make_site(rehearsal, tmp_path, shards, executor=pooled, output=root)
    pipeline = site.first_round()
    rehearsal.change(output={"cut_tail": 0})
    site.collect(pipeline)
    site.run(until=lambda: len(rehearsal.jobs) > shards)
    later = site.without_ledger()
    later.run()
    assert later.states() == [State.COLLECTED] * shards
    assert len(rehearsal.jobs) == shards + 1
    assert rehearsal.server.books.as_dict()["records"]["paid_again"] == 0
