"""A process that dies at any point of a job's way: no record is lost, doubled or paid for twice."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_assets.merge.verification import verify
from batch_assets_tests.command import some_records, write_records
from batch_assets_tests.control.dying import DIED, KEPT, LOST, named, run_and_die
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.sites import PER_SHARD, Site, assert_whole, make_site

Rehearse = Callable[..., Rehearsal]
SHARDS = 2

ONE_LEFT: dict[str, Any] = {"output": {"cut_tail": 1}}
SOME_LEFT: dict[str, Any] = {"records": {"throttled": 0.4}, "seed": 4}
# Of each job a record is left, and called for singly; or many, which are a job again; or both shards are one job.
CALLS, BATCH = (ONE_LEFT, {}), (SOME_LEFT, {"min_records": 1, "max_attempts": 40})
POOL: tuple[Any, Any] = ({}, {"min_records": PER_SHARD, "remainder": "pool"})

# With another ledger only what is under the root and at the service counts: a step in the ledger alone leaves what the
# one before it left. The claim and the commit, which shard runners share, are in `test_crashes.py`.
CASES = [
    (*CALLS, "preparation-claimed", 2, KEPT),
    (*CALLS, "requests-written", 2, KEPT),
    (*CALLS, "job-described", 2, KEPT),
    (*CALLS, "job-described", 2, LOST),
    (*CALLS, "submission-claimed", 1, KEPT),
    (*CALLS, "job-started", 2, KEPT),
    (*CALLS, "job-noted", 2, KEPT),
    (*CALLS, "state-noted", 1, KEPT),
    (*CALLS, "cost-noted", 1, KEPT),
    (*CALLS, "rows-kept", 1, KEPT),
    (*CALLS, "attempt-written", 1, LOST),
    (*CALLS, "job-described", 3, LOST),
    (*CALLS, "job-queued", 3, KEPT),
    (*CALLS, "cost-reserved", 1, KEPT),
    (*CALLS, "records-answered", 1, LOST),
    (*CALLS, "marker-committed", 1, LOST),
    (*BATCH, "job-described", 3, LOST),
    (*POOL, "pool-gathered", 1, LOST),
    (*POOL, "job-started", 1, LOST),
    (*POOL, "marker-committed", 1, LOST),
]


def named_with_kind(case: tuple[Any, ...]) -> str:
    faults, executor, *death = case
    kind = "pool" if executor.get("remainder") else "batch" if "records" in faults else "calls"
    return f"{kind}-{named((death[0], death[1], death[2]))}"


@pytest.mark.parametrize("case", CASES, ids=named_with_kind)
def test_dead_at_any_point_it_goes_on(rehearse: Rehearse, tmp_path: Path, case: tuple[Any, ...]) -> None:
    faults, executor, point, count, ledger_is_lost = case
    least = {"min_records": executor["min_records"]} if executor else {}
    rehearsal = rehearse(**faults, quotas=least)
    site = make_site(rehearsal, tmp_path, SHARDS, executor=executor, max_failed_fraction=1.0)
    records = some_records(SHARDS * PER_SHARD)
    if "remainder" in executor:
        # With a record rejected, each shard is too small for a job of its own.
        records[0]["text"] = records[PER_SHARD]["text"] = ""
        write_records(tmp_path / "in.jsonl", records)
    assert run_and_die(site.settings, tmp_path, rehearsal.environment, point, count) == DIED, (
        "not come to that"
    )
    rehearsal.change(output={"cut_tail": 0})
    after = site.without_ledger() if ledger_is_lost else site
    after.run()
    assert_whole(after, SHARDS, records)
    never_two_at_once(after)
    assert after.spent() == pytest.approx(after.billed(), rel=1e-6), "the ledger and the books disagree"
    report = verify(str(tmp_path / "out"))
    assert report.ok, report.problems


def never_two_at_once(site: Site) -> None:
    """No shard had two jobs alive at the same time."""
    lives: dict[str, list[tuple[float, float]]] = {}
    for job in site.rehearsal.jobs:
        shard = next((key for key in (row.key for row in site.rows()) if key in job.name), job.name)
        assert job.ended is not None
        lives.setdefault(shard, []).append((job.submitted, job.ended))
    for spans in lives.values():
        for (_, ended), (begun, _) in itertools.pairwise(sorted(spans)):
            assert ended <= begun
