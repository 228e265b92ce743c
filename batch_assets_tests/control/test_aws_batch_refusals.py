"""What AWS Batch, or another deployment, does against the rules: said in words, mended, and nobody else's trouble."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from batch_assets import paths
from batch_assets.control.collection import collect_shards
from batch_assets.control.loop import take_turn
from batch_assets.control.shard_result import Result
from batch_assets.errors import SubmissionRefused
from batch_assets.executors.aws_batch.service import AwsBatchService
from batch_assets_tests.command import some_records
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.sites import PER_SHARD, Site
from batch_assets_tests.transforming import make_transform_site
from batch_assets_tests.workers import assert_all_published, make_worker_site

Rehearse = Callable[..., Rehearsal]


def gone(self: AwsBatchService, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
    said = {"Code": "ClientException", "Message": "job-queue/embeddings does not exist"}
    raise ClientError({"Error": said, "ResponseMetadata": {"HTTPStatusCode": 400}}, "ListJobs")
    yield {}


def test_a_queue_that_is_gone_is_told_and_stops_nobody_else(
    rehearse: Rehearse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearsal = rehearse()
    site = make_worker_site(rehearsal, tmp_path, shards=2)
    with monkeypatch.context() as patch:
        patch.setattr(AwsBatchService, "_pages", gone)
        with pytest.raises(SubmissionRefused, match=r"job-queue/embeddings does not exist; name a job queue"):
            site.upload()
        (tmp_path / "other").mkdir()
        other = make_transform_site(rehearsal, tmp_path / "other", 1, name="other")
        other.ledger, other.clock = site.ledger, site.clock
        rehearsal.change(calls={"throttled": 1})
        pipelines = [site.open(), other.upload()]
        rehearsal.change(calls={"throttled": 0})
        while not other.done():
            other.clock.ahead += 10
            take_turn(pipelines)
            other.collect(pipelines[1])
    site.run()
    assert_all_published(site, some_records(2 * PER_SHARD))


def test_a_definition_that_is_never_answered_is_silence_and_no_wish_for_a_pause(
    rehearse: Rehearse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_worker_site(rehearse(), tmp_path, shards=1)
    pipeline = site.plan()
    client = pipeline.executor.service.client  # type: ignore[attr-defined]

    def ask(**_: Any) -> None:
        raise ClientError(
            {"Error": {"Code": "ServerException", "Message": "no word"}}, "DescribeJobDefinitions"
        )

    with monkeypatch.context() as patch:
        patch.setattr(client, "describe_job_definitions", ask)
        site.upload(pipeline)
        for _ in range(3):
            site.clock.ahead += 10
            assert "no answer came (ServerException: no word)" in take_turn([pipeline]).silent["texts"]
    assert site.ledger.scope(pipeline.executor.quota_group).rejections == 0  # type: ignore[attr-defined]
    site.run()
    assert_all_published(site, some_records(PER_SHARD))


def test_an_error_that_nobody_foresaw_stops_nobody_else(
    rehearse: Rehearse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearsal, sites = rehearse(), list[Site]()
    for name, instance in (("one", "ml.g5.xlarge"), ("two", "ml.m5.xlarge")):
        (tmp_path / name).mkdir()
        executor = {"instance_type": instance}
        sites.append(make_transform_site(rehearsal, tmp_path / name, 1, name=name, executor=executor))
    one, two = sites
    two.ledger, two.clock = one.ledger, one.clock
    pipelines = [site.upload() for site in sites]
    monkeypatch.setattr(type(pipelines[0].executor), "slots", lambda self: 1 // (self.settings.name == "two"))
    one.clock.ahead += 60
    turn = take_turn(pipelines)
    assert any("ZeroDivisionError" in problem for problem in turn.problems)
    while not two.done():
        one.clock.ahead += 10
        take_turn(pipelines)
        two.collect(pipelines[1])


@pytest.mark.parametrize("content", [None, b"{garbage"])
def test_a_marker_that_is_lost_or_spoiled_is_made_again(
    rehearse: Rehearse, tmp_path: Path, content: bytes | None
) -> None:
    site = make_worker_site(rehearse(), tmp_path, shards=2, executor={"max_attempts": 1})
    pipeline = site.run()
    key = site.rows()[0].key
    if content is None:
        pipeline.storage.delete([paths.shard_marker(key)])
    else:
        pipeline.storage.write(paths.shard_marker(key), content)
    assert [result.result for result in collect_shards(pipeline, [key])] != [Result.VERIFIED]
    site.run()
    assert_all_published(site, some_records(2 * PER_SHARD))
