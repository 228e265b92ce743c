"""A process that dies at any point of a transform job's way: no record is lost, doubled or computed twice."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batch_assets.control import uploading
from batch_assets.merge.verification import verify
from batch_assets_tests.control.dying import DIED, KEPT, LOST, Death, named, run_and_die
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.sites import PER_SHARD
from batch_assets_tests.transforming import billed, make_transform_site

Rehearse = Callable[..., Rehearsal]
SHARDS, BREAKING = 2, 5

# What this service's jobs are found again by; the other steps are the same for Bedrock.
DEATHS = [
    ("job-started", 1, LOST),
    ("job-started", 3, KEPT),
    ("job-described", 3, LOST),
]


@pytest.mark.parametrize("death", DEATHS, ids=named)
def test_dead_at_any_point_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, rehearse: Rehearse, tmp_path: Path, death: Death
) -> None:
    point, count, ledger_is_lost = death
    rehearsal = rehearse(events={"doubled": 1}, transform={"no_capacity": 1})
    site = make_transform_site(
        rehearsal, tmp_path, SHARDS, breaking=(BREAKING,), executor={"queue_url": rehearsal.queue()},
        max_failed_fraction=0.5,
    )  # fmt: skip
    assert run_and_die(site.settings, tmp_path, rehearsal.environment, point, count) == DIED, (
        "not come to that"
    )
    monkeypatch.setattr(uploading, "ANSWER_SECONDS", 0.01)
    rehearsal.change(calls={"lost_responses": 0.5}, transform={"no_capacity": 0})
    after = site.without_ledger() if ledger_is_lost else site
    after.run()
    rows = after.publish(after.open())
    assert len(rows) == SHARDS * PER_SHARD - 1
    assert after.failures()["source_row"].to_list() == [BREAKING]
    assert rehearsal.paid_twice() == 0
    assert len([job for job in rehearsal.jobs if job.started is not None]) == SHARDS + 2
    assert after.spent() == pytest.approx(billed(after), rel=1e-3), "the ledger and the books disagree"
    report = verify(str(tmp_path / "out"))
    assert report.ok, report.problems
