"""Slots, names and calls whose answer is lost: transform jobs start as soon as they may, each once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batch_assets.control import uploading
from batch_assets.control.loop import take_turn
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.sites import assert_whole
from batch_assets_tests.transforming import INSTANCE, make_transform_site

Rehearse = Callable[..., Rehearsal]
SHARDS = 3
CREATE, LIST = "CreateTransformJob", "ListTransformJobs"


@pytest.mark.parametrize("max_jobs", [None, SHARDS])
def test_the_quota_of_instances_is_kept(rehearse: Rehearse, tmp_path: Path, max_jobs: int | None) -> None:
    rehearsal = rehearse(transform={"instances": {INSTANCE: 2}, "timing": {"running": (60, 60)}})
    executor = {"instance_count": 2, "max_jobs": max_jobs}
    site = make_transform_site(rehearsal, tmp_path, SHARDS, executor=executor)
    site.run()
    assert_whole(site, SHARDS)
    # Where YAML believes in more than there is, the service says no, and that costs no attempt.
    assert (rehearsal.server.books.calls[CREATE]["ResourceLimitExceeded"] > 0) is (max_jobs is not None)
    assert {row.attempt for row in site.rows()} == {1}


def test_a_quota_of_none_is_for_a_person_to_mend(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(transform={"instances": {INSTANCE: 0}})
    site = make_transform_site(rehearsal, tmp_path, SHARDS)
    pipeline = site.plan()
    with pytest.raises(Exception, match="request an increase"):
        site.upload(pipeline)
    rehearsal.change(transform={"instances": {INSTANCE: 1}})
    site.run()
    assert_whole(site, SHARDS)


def test_lost_answers_are_looked_for_and_their_jobs_adopted(
    monkeypatch: pytest.MonkeyPatch, rehearse: Rehearse, tmp_path: Path
) -> None:
    monkeypatch.setattr(uploading, "ANSWER_SECONDS", 0.01)
    rehearsal = rehearse(calls={"lost_responses": 1})
    site = make_transform_site(rehearsal, tmp_path, SHARDS)
    site.run()
    assert_whole(site, SHARDS)
    assert len(rehearsal.jobs) == SHARDS
    assert {row.attempt for row in site.rows()} == {1}


def test_ends_are_found_by_events_whatever_else_comes(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(events={"doubled": 1, "swapped": 0.5})
    queue = rehearsal.queue()
    site = make_transform_site(
        rehearsal, tmp_path, SHARDS, executor={"queue_url": queue, "poll_seconds": 3600}
    )
    rehearsal.client("sqs").send_message(
        QueueUrl=queue, MessageBody='{"detail": {"TransformJobStatus": "Failed"}}'
    )
    pipeline = site.upload()
    listed = rehearsal.calls(LIST)
    while not site.done():
        take_turn([pipeline])
        site.collect(pipeline)
    assert_whole(site, SHARDS)
    assert rehearsal.calls(LIST) == listed
    assert len(rehearsal.jobs) == SHARDS
