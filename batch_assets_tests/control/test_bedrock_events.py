"""Events wake the loop up, and change nothing else: lost, doubled, late, out of order or somebody else's."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch_assets.control.loop import take_turn
from batch_assets.executors.base import JobState
from batch_assets.executors.bedrock.executor import BedrockExecutor
from batch_assets.executors.service_jobs import ServiceJob
from batch_assets_tests.rehearsed import TITAN, Rehearsal
from batch_assets_tests.sites import assert_whole, make_site
from batch_assets_tests.waiting import wait_until

Rehearse = Callable[..., Rehearsal]
SHARDS = 2
LIST = "ListModelInvocationJobs"


def test_an_end_is_found_by_its_event_without_polling(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse()
    site = make_site(
        rehearsal, tmp_path, SHARDS, executor={"queue_url": rehearsal.queue(), "poll_seconds": 3600}
    )
    pipeline = site.upload()
    listed = rehearsal.calls(LIST)
    while not site.done():
        take_turn([pipeline])
        site.collect(pipeline)
    assert_whole(site, SHARDS)
    assert rehearsal.calls(LIST) == listed


@pytest.mark.parametrize(
    "events",
    [
        {"doubled": 1},
        {"late": 1, "late_seconds": (1, 2000)},
        {"swapped": 1},
        {"dropped": 1},
        {"dropped": 0.3, "doubled": 0.3, "late": 0.3, "swapped": 0.3, "late_seconds": (1, 2000)},
    ],
    ids=lambda events: "-".join(events) if len(events) < 4 else "all",
)
def test_events_of_all_sorts_change_nothing(
    rehearse: Rehearse, tmp_path: Path, events: dict[str, Any]
) -> None:
    rehearsal = rehearse(
        events=events, records={"throttled": 0.3}, tenants={"jobs": {TITAN: 1}, "pause": (2000, 2000)}
    )
    queue = rehearsal.queue()
    site = make_site(
        rehearsal, tmp_path, SHARDS, executor={"queue_url": queue, "poll_seconds": 1, "max_attempts": 40}
    )
    site.run()
    assert_whole(site, SHARDS)
    assert len(rehearsal.jobs) == len(site.ledger.submissions(pipeline="texts"))


def test_messages_that_are_no_events_stay_in_the_queue(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(timing={"running": (10**6, 10**6)})
    queue = rehearsal.queue()
    site = make_site(rehearsal, tmp_path, 1, executor={"queue_url": queue})
    sqs = rehearsal.client("sqs")
    arn = "arn:aws:bedrock:us-east-1:123456789012:model-invocation-job/ffffffffffff"
    others = ["{", "[]", "null", "{}", '{"detail": 7}', '{"detail": {}, "resources": []}', '{"Message": "x"}',
              '{"order": 17}'] * 3  # fmt: skip
    bodies = [*others, *[f'{{"detail": {{"batchJobArn": "{arn}", "status": "Completed"}}}}'] * 3]
    for body in bodies:
        sqs.send_message(QueueUrl=queue, MessageBody=body)
    pipeline = site.upload()
    # The job says Submitted, whatever an event claims.
    job = rehearsal.jobs[0].arn
    sqs.send_message(
        QueueUrl=queue, MessageBody=f'{{"detail": {{"batchJobArn": "{job}", "status": "Completed"}}}}'
    )
    for _ in range(4):
        site.clock.ahead += 1
        turn = take_turn([pipeline])
        assert not turn.problems
    assert site.states()[0] in ("submitted", "running")
    counts = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    # The service may only not know yet: that one event comes again, some times.
    left = [counts[f"ApproximateNumberOfMessages{which}"] for which in ("", "NotVisible")]
    assert sum(map(int, left)) == len(others) + 1


def test_a_queue_that_is_gone_costs_nothing_but_earliness(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse()
    url = f"{rehearsal.server.endpoint}/123456789012/no-such-queue"
    site = make_site(rehearsal, tmp_path, SHARDS, executor={"queue_url": url})
    site.run()
    assert_whole(site, SHARDS)


def test_a_job_is_asked_about_for_its_end_only(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(timing={"running": (10**6, 10**6)})
    queue = rehearsal.queue()
    site = make_site(rehearsal, tmp_path, 1, executor={"queue_url": queue, "poll_seconds": 3600})
    pipeline = site.upload()
    job, asked = rehearsal.jobs[0].arn, "GetModelInvocationJob"
    for status, calls in (("Validating", 0), ("InProgress", 0), ("Completed", 1), ("something new", 2)):
        body = f'{{"detail": {{"batchJobArn": "{job}", "status": "{status}"}}}}'
        rehearsal.client("sqs").send_message(QueueUrl=queue, MessageBody=body)
        take_turn([pipeline])
        assert rehearsal.calls(asked) == calls


def test_an_event_that_is_ahead_of_the_service_comes_again(
    rehearse: Rehearse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearsal = rehearse()
    queue = rehearsal.queue()
    rehearsal.client("sqs").set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "1"})
    site = make_site(rehearsal, tmp_path, 1, executor={"queue_url": queue, "poll_seconds": 3600})
    truth, asked = BedrockExecutor.look_up, list[str]()

    def behind(executor: BedrockExecutor, job_id: str) -> ServiceJob | None:
        found = truth(executor, job_id)
        asked.append(job_id)
        return replace(found, state=JobState.RUNNING) if found is not None and len(asked) < 3 else found

    monkeypatch.setattr(BedrockExecutor, "look_up", behind)
    pipeline = site.upload()

    def done() -> bool:
        take_turn([pipeline])
        site.collect(pipeline)
        return site.done()

    wait_until(done, site.states)
    assert_whole(site, 1)
    assert len(asked) >= 3
