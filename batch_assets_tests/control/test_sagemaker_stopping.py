"""Transform jobs that are stopped, refused or told of late: none costs an attempt, and none is paid for twice."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch_assets.control import uploading
from batch_assets.control.loop import take_turn
from batch_assets.control.shard_result import Result
from batch_assets.control.stopping import cancel_active, stop_pipeline
from batch_assets.executors.base import JobState
from batch_assets.executors.sagemaker.service import SageMakerService
from batch_assets.executors.service_jobs import Unanswered
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.sites import assert_whole
from batch_assets_tests.transforming import make_transform_site
from batch_assets_tests.waiting import PATIENCE_SECONDS

Rehearse = Callable[..., Rehearsal]
SLOW = {"timing": {"starting": (0, 0), "running": (10**6, 10**6), "stopping": (0, 0)}}
FAST = {"timing": {"starting": (0, 0), "running": (1, 1), "stopping": (0, 0)}}


@pytest.mark.parametrize("by_order", [True, False])
def test_who_is_stopped_on_the_last_attempt_has_it_still(
    rehearse: Rehearse, tmp_path: Path, by_order: bool
) -> None:
    rehearsal = rehearse(transform=SLOW)
    site = make_transform_site(rehearsal, tmp_path, 2, executor={"max_attempts": 1})
    pipeline = site.upload()
    if by_order:
        stop_pipeline(pipeline, PATIENCE_SECONDS)
    else:  # as where another job's output is not what was asked for
        site.ledger.block("texts", "unexpected output")
        cancel_active(pipeline)
    rehearsal.change(transform=FAST)
    site.run()
    assert_whole(site, 2)


def test_results_are_waited_for_while_the_service_tells_of_another_moment(
    rehearse: Rehearse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_transform_site(rehearse(output={"late": 1, "late_seconds": (10**7, 10**7)}), tmp_path, 1)
    pipeline = site.first_round()
    told = SageMakerService.get
    for stale in (lambda job: None, lambda job: replace(job, state=JobState.RUNNING, ended_at=None)):
        with monkeypatch.context() as patch:
            patch.setattr(SageMakerService, "get", lambda self, name, stale=stale: stale(told(self, name)))
            assert [result.result for result in site.collect(pipeline)] == [Result.NOT_READY]
        site.clock.ahead += 5
    site.rehearsal.server.set_clock(advance=10**7)
    site.run()
    assert_whole(site, 1)
    assert len(site.rehearsal.jobs) == 1


def test_a_call_without_an_answer_is_not_made_again_where_the_pipeline_is_refused(
    rehearse: Rehearse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_transform_site(rehearse(), tmp_path, 1)

    def unanswered(*_: Any) -> str:
        raise Unanswered("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(uploading, "ANSWER_SECONDS", 0.0)
        patch.setattr(SageMakerService, "create", unanswered)
        pipeline = site.upload()
    site.ledger.block("texts", "what came is not what was asked for")
    site.clock.ahead += 60
    take_turn([pipeline])
    assert site.rehearsal.jobs == []
    assert site.states() == ["queued"]
    site.run()
    assert_whole(site, 1)
    assert len(site.rehearsal.jobs) == 1
