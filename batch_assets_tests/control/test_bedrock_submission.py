"""Slots, quotas and calls whose answer is lost: jobs start as soon as they may, each once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from batch_assets.control import submission as submitting
from batch_assets.control import uploading
from batch_assets.control.loop import Turn, take_turn
from batch_assets.control.reconciler import ACTIVE, resolve
from batch_assets.errors import ClaimLost, StorageError
from batch_assets.executors.bedrock.service import BedrockService
from batch_assets.executors.jobs import JobKey, read_description, write_description
from batch_assets.executors.service_jobs import Unanswered
from batch_assets.ledger.states import SubmissionState
from batch_assets_tests.rehearsed import ROLE, TITAN, Rehearsal
from batch_assets_tests.sites import Site, assert_whole, make_site

Rehearse = Callable[..., Rehearsal]
SHARDS = 5
CREATE = "CreateModelInvocationJob"


def create_in_vain(*_: Any, **__: Any) -> str:
    raise Unanswered("503, and no word")


def attempts(site: Site) -> set[int]:
    return {row.attempt for row in site.rows()}


def test_the_jobs_of_the_next_root_are_not_submitted_with_the_requests_of_the_one_before(
    rehearse: Rehearse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was at work before goes on with the pipeline as it was opened, on rows that are the next root's."""
    rehearsal = rehearse(timing={"running": (60, 60)})
    site = make_site(rehearsal, tmp_path, SHARDS)
    monkeypatch.setattr(uploading, "take_turn", lambda *_, **__: Turn())  # queued, and nothing started
    early = site.upload()
    output = site.settings.output.model_copy(update={"root": f"{tmp_path}/next"})
    moved = replace(site, settings=site.settings.model_copy(update={"output": output}))
    moved.ledger = site.ledger
    pipeline = moved.upload()
    with pytest.raises(ClaimLost, match=r"is on output root .*/next since this run was started on .*/out"):
        take_turn([early])
    assert not rehearsal.jobs
    assert set(moved.states()) == {"queued"}
    assert take_turn([pipeline]).started > 0


def test_a_description_of_another_job_is_not_submitted(
    rehearse: Rehearse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a root was made anew under the eyes of a run: the same shard, the same fence, other requests."""
    monkeypatch.setattr(uploading, "take_turn", lambda *_, **__: Turn())
    site = make_site(rehearse(), tmp_path, 1)
    pipeline = site.upload()
    [row] = site.rows()
    found = read_description(pipeline.storage, row.key, row.job)
    assert found is not None
    write_description(pipeline.storage, replace(found, digest="0" * 16))
    take_turn([pipeline])
    assert site.states() == ["prepared"]
    assert not site.rehearsal.jobs


def test_the_quota_of_the_account_is_kept_without_a_refusal(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(quotas={"concurrent_jobs": 2}, timing={"running": (60, 60)})
    site = make_site(rehearsal, tmp_path, SHARDS)
    site.run()
    assert_whole(site, SHARDS)
    assert dict(rehearsal.server.books.calls[CREATE]) == {"ok": SHARDS}


def test_a_quota_smaller_than_believed_slows_down_and_costs_no_attempt(
    rehearse: Rehearse, tmp_path: Path
) -> None:
    rehearsal = rehearse(quotas={"concurrent_jobs": 1}, timing={"running": (60, 60)})
    site = make_site(rehearsal, tmp_path, SHARDS, executor={"max_jobs": 4})
    site.run()
    assert_whole(site, SHARDS)
    assert attempts(site) == {1}
    assert rehearsal.server.books.calls[CREATE]["ServiceQuotaExceededException"] > 0


@pytest.mark.parametrize("when_full", ["wait_submitted", "wait_scheduled"])
def test_a_service_that_queues_jobs_itself(rehearse: Rehearse, tmp_path: Path, when_full: str) -> None:
    rehearsal = rehearse(quotas={"concurrent_jobs": 1, "when_full": when_full}, timing={"running": (60, 60)})
    site = make_site(rehearsal, tmp_path, SHARDS, executor={"max_jobs": 4})
    site.run()
    assert_whole(site, SHARDS)
    assert dict(rehearsal.server.books.calls[CREATE]) == {"ok": SHARDS}


def test_throttled_and_broken_calls_slow_down_and_cost_no_attempt(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(calls={"throttled": 0.3, "server_errors": 0.2}, seed=5)
    site = make_site(rehearsal, tmp_path, SHARDS)
    site.run()
    assert_whole(site, SHARDS)
    assert attempts(site) == {1}
    assert len(rehearsal.jobs) == SHARDS


def test_jobs_of_others_take_slots(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(
        quotas={"concurrent_jobs": 4}, tenants={"jobs": {TITAN: 3}}, timing={"running": (10**7, 10**7)}
    )
    rehearsal.client("bedrock").list_model_invocation_jobs()
    rehearsal.change(timing={"running": (60, 60)})
    site = make_site(rehearsal, tmp_path, SHARDS)
    site.run()
    assert_whole(site, SHARDS)
    assert dict(rehearsal.server.books.calls[CREATE]) == {"ok": SHARDS}
    assert site.ledger.scope(site.open().executor.quota_group).foreign_jobs == 3  # type: ignore[attr-defined]


def test_a_lost_answer_is_looked_for_and_its_job_adopted(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(calls={"lost_responses": 1})
    site = make_site(rehearsal, tmp_path, SHARDS)
    site.run()
    assert_whole(site, SHARDS)
    assert len(rehearsal.jobs) == SHARDS
    assert attempts(site) == {1}


def test_a_lost_answer_to_a_job_that_was_never_accepted_is_asked_again(
    rehearse: Rehearse, tmp_path: Path
) -> None:
    rehearsal = rehearse()
    site = make_site(rehearsal, tmp_path, 1)
    site.plan()
    rehearsal.change(calls={"server_errors": 1})
    pipeline = site.upload()
    assert rehearsal.jobs == []
    rehearsal.change(calls={"server_errors": 0})
    take_turn([pipeline])
    site.run()
    assert_whole(site, 1)
    assert len(rehearsal.jobs) == 1


def test_that_jobs_are_listed_and_none_is_taken_is_told_at_every_try(
    rehearse: Rehearse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(rehearse(), tmp_path, 1)
    pipeline, why = site.plan(), "a job was asked for and no answer came (503, and no word)"
    with monkeypatch.context() as patch:
        patch.setattr(BedrockService, "create", create_in_vain)
        site.upload(pipeline)
        for _ in range(3):
            site.clock.ahead += 60
            turn = take_turn([pipeline])
            assert turn.silent == {"texts": f"{pipeline.executor.quota_group}: {why}"}  # type: ignore[attr-defined]
            assert (turn.started, turn.problems) == (0, [])
    site.clock.ahead += 60
    assert take_turn([pipeline]).silent == {}


@pytest.mark.parametrize("gone", ["moved on by somebody else", "forgotten by the ledger"])
def test_a_submission_that_carries_no_jobs_any_more_is_asked_nobody_about(
    rehearse: Rehearse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    rehearsal = rehearse()
    site = make_site(rehearsal, tmp_path, 1, executor={"max_jobs": 1})
    pipeline = site.plan()
    monkeypatch.setattr(BedrockService, "create", create_in_vain)
    site.upload(pipeline)
    [unanswered] = site.ledger.submissions(pipeline="texts")
    assert unanswered.state is SubmissionState.SUBMITTING
    if gone == "moved on by somebody else":
        assert site.ledger.refused(unanswered.token, "no")
    else:
        with site.ledger._database.write() as connection:
            connection.execute(sa.text("delete from ledger_jobs"))
    calls = dict(rehearsal.server.books.calls)
    assert resolve(unanswered, [pipeline]) == {}
    assert dict(rehearsal.server.books.calls) == calls
    # It holds no slot: the next takes it.
    assert not site.ledger.submissions(scope=unanswered.scope, states=ACTIVE)


def test_a_store_that_does_not_answer_a_submission_is_asked_at_every_turn(
    rehearse: Rehearse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn between two tries would count as one in which all was answered."""
    site = make_site(rehearse(), tmp_path, 1)
    pipeline = site.plan()

    def describe_all(*_: Any) -> None:
        raise StorageError("s3://bucket: no answer")

    with monkeypatch.context() as patch:
        patch.setattr(submitting, "describe_all", describe_all)
        site.upload(pipeline)
        for _ in range(3):
            site.clock.ahead += 0.5
            assert take_turn([pipeline]).silent == {"texts": "s3://bucket: no answer"}
    site.run()
    assert_whole(site, 1)
    assert attempts(site) == {1}


@pytest.mark.parametrize("said", ["ConflictException", "ValidationException"])
def test_a_job_of_the_same_name_is_the_same_job(rehearse: Rehearse, tmp_path: Path, said: str) -> None:
    rehearsal = rehearse(calls={"throttled": 1, "name_taken": said})
    site = make_site(rehearsal, tmp_path, 1)
    pipeline = site.upload()
    assert rehearsal.jobs == []
    rehearsal.change(calls={"throttled": 0})
    job = site.ledger.job("texts", "g0001-00000", site.rows()[0].job)
    assert job is not None
    _, name = pipeline.executor.submission_name([JobKey(job.shard, job.fence, job.digest)])  # type: ignore[attr-defined]
    requests = next(key for key in rehearsal.objects("staging/") if key.endswith(".jsonl")).rsplit("/", 1)[0]
    folder = f"s3://{rehearsal.bucket}/{requests}"
    rehearsal.client("bedrock").create_model_invocation_job(
        jobName=name,
        roleArn=ROLE,
        modelId=TITAN,
        clientRequestToken="of-another-process",
        inputDataConfig={"s3InputDataConfig": {"s3Uri": f"{folder}/"}},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": f"{folder.rsplit('/', 1)[0]}/results/"}},
    )
    site.run()
    assert_whole(site, 1)
    assert len(rehearsal.jobs) == 1


def test_a_no_that_was_a_yes_is_found_out(rehearse: Rehearse, tmp_path: Path) -> None:
    """The service took the job, and the ledger was told of a refusal."""
    rehearsal = rehearse(timing={"running": (10**6, 10**6)})
    site = make_site(rehearsal, tmp_path, 1, executor={"max_jobs": 1})
    pipeline = site.upload()
    [submission] = site.ledger.submissions(pipeline="texts")
    with site.ledger._database.write() as connection:
        connection.execute(sa.text("update ledger_submissions set state = 'submitting', service_id = null"))
        connection.execute(sa.text("update ledger_shards set state = 'submitting'"))
    assert site.ledger.refused(submission.token, "no")
    assert site.states() == ["queued"]
    site.clock.ahead += 60
    for _ in range(3):
        take_turn([pipeline])
        site.clock.ahead += 10
    assert site.ledger.submission(submission.token).state is not SubmissionState.REFUSED  # type: ignore[union-attr]
    rehearsal.let_pass(10**6 + 10)
    site.run()
    assert len(rehearsal.jobs) == 1
    assert rehearsal.paid_twice() == 0


def test_the_higher_priority_goes_first(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(quotas={"concurrent_jobs": 1}, timing={"running": (60, 60)})
    folders = [tmp_path / name for name in ("low", "high")]
    for folder in folders:
        folder.mkdir()
    low = make_site(rehearsal, folders[0], 3)
    high = make_site(rehearsal, folders[1], 3, name="urgent", executor={"priority": 1})
    high.ledger, high.clock = low.ledger, low.clock
    rehearsal.change(calls={"throttled": 1})
    pipelines = [low.upload(), high.upload()]
    rehearsal.change(calls={"throttled": 0})
    while not (low.done() and high.done()):
        low.clock.ahead += 2
        take_turn(pipelines)
        low.collect(pipelines[0])
        high.collect(pipelines[1])
    names = [job.name.split("-", 1)[0] for job in rehearsal.jobs]
    assert names == ["urgent"] * 3 + ["texts"] * 3
