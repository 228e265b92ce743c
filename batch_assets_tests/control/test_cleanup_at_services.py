"""Cleanup of what jobs at services leave: descriptions stay, and what another deployment asked and paid for."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch_assets.control.cleanup import find_leftovers, owned_pipeline, remove_leftovers
from batch_assets.control.loop import take_turn
from batch_assets.control.pipeline import Pipeline
from batch_assets.control.planning import plan_source
from batch_assets_tests.command import some_records, write_records
from batch_assets_tests.control.cleaned import LATER, WEEK, counted
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.sites import PER_SHARD as PER_JOB
from batch_assets_tests.sites import Clock, Site, assert_every_record_once, assert_whole, make_site
from batch_assets_tests.waiting import wait_until

Rehearse = Callable[..., Rehearsal]


def test_of_a_service_all_goes_but_what_a_lost_ledger_is_rebuilt_from(
    rehearse: Rehearse, tmp_path: Path
) -> None:
    shards = 5
    rehearsal = rehearse(output={"cut_tail": 1}, quotas={"concurrent_jobs": shards})
    fields: dict[str, Any] = {"retention": WEEK, "executor": {"remainder": "pool"}}
    site = make_site(rehearsal, tmp_path, shards, **fields)
    pipeline = site.first_round()
    assert counted(find_leftovers(owned(site), time.time() + LATER)) == {}  # all is at the service yet
    rehearsal.change(output={"cut_tail": 0})
    site.collect(pipeline)
    assert counted(find_leftovers(owned(site), time.time() + LATER)) == {}  # the rest of each is queued
    site.run()
    assert_whole(site, shards)
    spent, jobs, before = site.spent(), len(rehearsal.jobs), rehearsal.objects()
    removed = remove_leftovers(owned(site), time.time() + LATER)
    # Requests: of the first jobs, of the remainders, and of the pool; results: of both kinds of jobs, and kept rows.
    assert counted(removed)["requests"] == 3 * shards
    after = rehearsal.objects()
    assert len(before) - len(after) == removed.files - shards  # kept rows lie under the root
    assert after == []
    jobs_left = {path.name.split("-")[0] for path in (tmp_path / "out" / "jobs").rglob("*.*")}
    assert jobs_left == {"job.json", "texts"}  # texts-…-pool-….json
    assert {path.name for path in (tmp_path / "out" / "shards").rglob("attempts/*/*")} == {"attempt.json"}

    again = site.without_ledger()
    again.run()
    assert (len(rehearsal.jobs), again.spent()) == (jobs, pytest.approx(spent))
    assert again.states() == ["collected"] * shards
    rows = again.publish(again.open())
    assert len(rows) == shards * PER_JOB


@pytest.mark.parametrize("remainder", ["on_demand", "pool"])
def test_what_another_deployment_at_the_same_path_asked_and_paid_for_stays(
    rehearse: Rehearse, tmp_path: Path, remainder: str
) -> None:
    """Two machines, each with its own disk, share a staging area; the first has not collected its results yet."""
    shards, cut = 5, remainder == "pool"
    rehearsal = rehearse(output={"cut_tail": int(cut)}, quotas={"concurrent_jobs": shards})
    fields: dict[str, Any] = {"retention": WEEK, "executor": {"remainder": remainder}}
    first = make_site(rehearsal, tmp_path, shards, **fields)
    waiting = first.first_round()
    rehearsal.change(output={"cut_tail": 0})
    if cut:  # what was cut off becomes one job of all shards
        first.collect(waiting)

    def ended() -> bool:
        first.clock.leap(10.0)
        take_turn([waiting])
        return len(rehearsal.jobs) == shards + cut and not any(job.active for job in rehearsal.jobs)

    wait_until(ended, lambda: rehearsal.jobs)
    theirs = set(rehearsal.objects("staging/"))
    (tmp_path / "out").rename(tmp_path / "away")
    second = replace(first.without_ledger(), clock=Clock())
    second.run()
    removed = counted(remove_leftovers(owned(second), time.time() + LATER))
    assert min(removed["requests"], removed["results"]) >= shards
    assert set(rehearsal.objects("staging/")) == theirs

    (tmp_path / "out").rename(tmp_path / "other")
    (tmp_path / "away").rename(tmp_path / "out")
    jobs = len(rehearsal.jobs)
    first.run()
    assert (first.states(), len(rehearsal.jobs)) == (["collected"] * shards, jobs)
    assert_every_record_once(first.publish(waiting), some_records(shards * PER_JOB))


def test_requests_of_a_shard_that_left_the_merge_go_and_what_proves_them_stays(
    rehearse: Rehearse, tmp_path: Path
) -> None:
    rehearsal = rehearse()
    site = make_site(rehearsal, tmp_path, 2, retention={"superseded": "7d"}, merge_when="any")
    site.publish(site.run())
    write_records(tmp_path / "in.jsonl", some_records(PER_JOB))
    plan_source(site.open(), replace=True)
    site.publish(site.run())
    assert any("g0001-00001" in name for name in rehearsal.objects("staging/"))
    remove_leftovers(owned(site), time.time() + LATER)
    assert not any("g0001-00001" in name for name in rehearsal.objects("staging/"))
    assert list((tmp_path / "out" / "jobs").rglob("g0001-00001/1/job.json")), "what proves them stays"


def owned(site: Site) -> Pipeline:
    return owned_pipeline(site.settings, site.ledger, site.account.executor(site.settings))
