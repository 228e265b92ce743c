"""A process that dies at any point of a job's way: no record is lost, doubled or paid for twice."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_assets.merge.verification import verify
from batch_assets_tests.command import some_records, write_records
from batch_assets_tests.control.dying import DIED, run_and_die
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.sites import PER_SHARD, Site, assert_whole, make_site

Rehearse = Callable[..., Rehearsal]
SHARDS = 2

# The point that the child dies at, and which time it comes there.
FIRST_JOB = [
    ("preparation-claimed", 2),
    ("requests-written", 2),
    ("job-described", 2),
    ("job-queued", 1),
    ("submission-claimed", 1),
    ("job-started", 2),
    ("job-noted", 2),
    ("state-noted", 1),
    ("shard-claimed", 1),
]
NEXT_JOB = [
    ("results-fetched", 1),
    ("cost-noted", 1),
    ("rows-kept", 1),
    ("attempt-written", 1),
    ("job-described", 3),
    ("job-queued", 3),
]
COMMIT = [
    ("cost-noted", 3),
    ("commit-begun", 1),
    ("marker-committed", 1),
    ("shard-collected", 1),
]
ON_DEMAND = [
    ("cost-reserved", 1),
    ("records-answered", 1),
    *COMMIT,
]
POOL = [
    ("pool-described", 1),
    ("pool-gathered", 1),
    ("job-started", 1),
    ("results-fetched", 1),
    ("cost-noted", 1),
    *COMMIT[1:],
]
ONE_LEFT: dict[str, Any] = {"output": {"cut_tail": 1}}
SOME_LEFT: dict[str, Any] = {"records": {"throttled": 0.4}, "seed": 4}
LITTLE_LEFT, MUCH_LEFT = (ONE_LEFT, {}), (SOME_LEFT, {"min_records": 1, "max_attempts": 40})
POOLED: tuple[Any, Any] = ({}, {"min_records": PER_SHARD, "remainder": "pool"})
KEPT, LOST = False, True
CASES = [
    *((*LITTLE_LEFT, *point, KEPT) for point in [*FIRST_JOB, *NEXT_JOB, *ON_DEMAND[::2]]),
    *((*LITTLE_LEFT, *point, LOST) for point in [*FIRST_JOB[2::2], *NEXT_JOB, *ON_DEMAND[1::2]]),
    *((*MUCH_LEFT, *point, LOST) for point in NEXT_JOB[::2]),
    *((*POOLED, *point, KEPT) for point in POOL[::2]),
    *((*POOLED, *point, LOST) for point in POOL),
]


def named(case: tuple[Any, ...]) -> str:
    faults, executor, point, count, lost = case
    kind = "pool" if executor.get("remainder") else "batch" if "records" in faults else "calls"
    return f"{kind}-{point}-{count}{'-ledger-lost' if lost else ''}"


@pytest.mark.parametrize("case", CASES, ids=named)
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
