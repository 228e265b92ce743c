"""After a lost ledger the service is asked for many jobs at once, not for one after the other."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_assets.executors.sagemaker.service import SageMakerService
from batch_assets.ledger.states import State
from batch_assets_tests.command import some_records
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.sites import PER_SHARD
from batch_assets_tests.transforming import make_transform_site
from batch_assets_tests.waiting import PATIENCE_SECONDS
from batch_assets_tests.workers import assert_all_published, make_worker_site

Rehearse = Callable[..., Rehearsal]
JOBS = 3


def test_aws_batch_tells_of_many_in_one_call(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(batch={"timing": {"running": (2_000, 2_000)}})
    site = make_worker_site(rehearsal, tmp_path, JOBS)
    pipeline = site.plan()
    pipeline.executor.array_jobs = 1  # type: ignore[attr-defined]
    site.upload(pipeline)
    assert site.sizes() == [1] * JOBS
    before = rehearsal.calls("DescribeJobs")
    later = site.without_ledger()
    later.open()
    assert rehearsal.calls("DescribeJobs") == before + 1
    assert set(later.states()) <= {State.SUBMITTED, State.RUNNING, State.SUCCEEDED, State.COLLECTED}
    later.run()
    assert site.sizes() == [1] * JOBS
    assert_all_published(later, some_records(JOBS * PER_SHARD))


def test_sagemaker_is_asked_for_several_jobs_at_once(
    rehearse: Rehearse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_transform_site(rehearse(), tmp_path, JOBS)
    site.first_round()
    get, together = SageMakerService.get, threading.Barrier(JOBS, timeout=PATIENCE_SECONDS)

    def meeting(service: SageMakerService, name: str) -> Any:
        together.wait()
        return get(service, name)

    later = site.without_ledger()
    with monkeypatch.context() as patched:
        patched.setattr(SageMakerService, "get", meeting)
        later.open()
    assert later.states() == [State.SUCCEEDED] * JOBS
