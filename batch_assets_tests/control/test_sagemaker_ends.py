"""Every way in which a transform job can end: finished objects are kept, the rest is tried again, and one record
costs no other."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batch_assets.control.loop import take_turn
from batch_assets.control.preparation import queue_shards
from batch_assets.control.shard_result import Result
from batch_assets.errors import SubmissionRefused
from batch_assets.ledger.states import SubmissionState
from batch_assets_tests.command import some_records, write_records
from batch_assets_tests.rehearsed import DIMENSIONS, Rehearsal
from batch_assets_tests.sites import PER_SHARD, Site, assert_every_record_once, assert_whole
from batch_assets_tests.transforming import billed, bring_on_first_shard, make_transform_site

Rehearse = Callable[..., Rehearsal]
SHARDS = 2


def ends(site: Site) -> set[SubmissionState]:
    return {row.state for row in site.ledger.submissions(pipeline="texts")}


def test_on_a_calm_day_everything_is_paid_and_published_once(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_transform_site(
        rehearse(), tmp_path, SHARDS, executor={"instance_count": 2, "tags": {"a": "b"}}
    )
    site.run()
    assert_whole(site, SHARDS)
    jobs = site.rehearsal.jobs
    assert len(jobs) == SHARDS
    assert site.rehearsal.sent() == SHARDS * PER_SHARD
    assert site.spent() == pytest.approx(billed(site), rel=1e-3)
    assert site.spent() > 0
    source = jobs[0].request["TransformInput"]["DataSource"]["S3DataSource"]
    inputs = site.rehearsal.objects(source["S3Uri"].split("/", 3)[3])
    assert source["S3Uri"].endswith("/")
    assert len(inputs) == 4  # and nothing else: an S3 prefix is a mere beginning of keys
    assert not jobs[0].request["TransformOutput"]["S3OutputPath"].startswith(source["S3Uri"].rstrip("/"))


def test_finished_objects_are_kept_and_the_record_that_breaks_one_is_found(
    rehearse: Rehearse, tmp_path: Path
) -> None:
    rehearsal = rehearse(transform={"keeps_input_folder": True})
    site = make_transform_site(rehearsal, tmp_path, 1, breaking=(4,), max_failed_fraction=0.5)
    pipeline = site.first_round()
    assert ends(site) == {SubmissionState.FAILED}
    # Nobody tells which objects failed: results that are not there may be late.
    assert [result.result for result in site.collect(pipeline)] == [Result.NOT_READY]
    site.clock.ahead += 60
    [result] = site.collect(pipeline)
    assert result.continued is not None
    assert (result.continued.kept, result.continued.again) == (9, 3)
    assert result.continued.reasons == {"object_failed": 3}
    site.run()
    rows = site.publish(site.open())
    records = some_records(PER_SHARD)
    assert_every_record_once(rows, [record for record in records if record["id"] != records[4]["id"]])
    failures = site.failures()
    assert failures["record_id"].to_list() == [records[4]["id"]]
    assert failures["error_code"].to_list() == ["record_refused"]
    assert failures["attempts"].to_list() == [3]
    assert "ClientError" in failures["error_message"][0]
    assert len(rehearsal.jobs) == 3
    # The search has cost the other records no attempt, and no finished one was computed again.
    assert rehearsal.paid_twice() == 0
    assert site.spent() == pytest.approx(billed(site), rel=1e-3)


def test_one_bad_record_among_good_ones_in_a_single_object_costs_only_itself(
    rehearse: Rehearse, tmp_path: Path
) -> None:
    executor = {"objects_per_shard": 1, "max_attempts": 2}
    site = make_transform_site(
        rehearse(), tmp_path, 1, breaking=(0,), executor=executor, max_failed_fraction=0.5
    )
    site.run()
    assert site.rows()[0].failed == 1
    assert len(site.rehearsal.jobs) == 2


def test_no_capacity_is_no_records_fault(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(transform={"no_capacity": 1})
    site = make_transform_site(rehearsal, tmp_path, 1)
    [result] = site.collect(site.first_round())
    assert result.continued is not None and result.continued.reasons == {"job_failed": PER_SHARD}
    assert site.spent() == 0
    rehearsal.change(transform={"no_capacity": 0})
    site.run()
    assert_whole(site, 1)
    assert [row.attempt for row in site.rows()] == [2]
    second = rehearsal.jobs[-1].request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
    assert len(rehearsal.objects(second.split("/", 3)[3])) == 4  # as it was, not cut


def test_results_that_are_late_or_never_come(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(transform={"absent_objects": 0.5}, seed=3)
    site = make_transform_site(rehearsal, tmp_path, 1)
    pipeline = site.first_round()
    assert ends(site) == {SubmissionState.SUCCEEDED}
    [result] = site.collect(pipeline)
    assert result.result is Result.NOT_READY
    rehearsal.change(transform={"absent_objects": 0}, output={"late": 1, "late_seconds": (1, 50)})
    site.run()
    assert_whole(site, 1)


def test_a_stopped_job_leaves_nothing_and_is_tried_again(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(transform={"timing": {"running": (10**6, 10**6)}})
    site = make_transform_site(rehearsal, tmp_path, 1)
    site.upload()
    rehearsal.client("sagemaker").stop_transform_job(TransformJobName=rehearsal.jobs[0].name)
    rehearsal.change(transform={"timing": {"running": (1, 1)}})
    [result] = site.collect(site.first_round())
    assert ends(site) == {SubmissionState.STOPPED}
    assert result.continued is not None and result.continued.reasons == {"job_stopped": PER_SHARD}
    site.run()
    assert_whole(site, 1)


@pytest.mark.parametrize(("model", "said"), [("my-tokens", "no pooling"), ("my-text", "output_field")])
def test_output_that_nobody_asked_for_stops_the_pipeline_and_costs_no_attempt(
    rehearse: Rehearse, tmp_path: Path, model: str, said: str
) -> None:
    site = make_transform_site(rehearse(), tmp_path, SHARDS, executor={"model_name": model})
    assert bring_on_first_shard(site).result is Result.CONTINUED
    blocked = site.ledger.money("texts").blocked
    assert blocked is not None and said in blocked
    assert site.spent() == pytest.approx(billed(site), rel=1e-3)
    for _ in range(3):
        site.clock.ahead += 60
        assert said in take_turn([site.open()]).refused["texts"]
    assert len(site.rehearsal.jobs) == 1
    mended = site.with_executor(model_name="my-model")
    mended.run()
    assert_every_record_once(mended.publish(mended.open()), some_records(SHARDS * PER_SHARD))
    assert {row.attempt for row in site.rows()} <= {1, 2}


def test_another_width_than_the_first_shards_stops_the_pipeline(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse()
    site = make_transform_site(rehearsal, tmp_path, SHARDS)
    assert bring_on_first_shard(site).result is Result.COLLECTED
    rehearsal.change(transform={"width": DIMENSIONS // 2})
    site.run(until=lambda: site.ledger.money("texts").blocked is not None)
    blocked = site.ledger.money("texts").blocked
    assert blocked is not None and "128 numbers" in blocked and "256" in blocked


def test_csv_keeps_texts_of_all_sorts_and_a_record_too_large_is_rejected(
    rehearse: Rehearse, tmp_path: Path
) -> None:
    site = make_transform_site(
        rehearse(),
        tmp_path,
        1,
        executor={"content_type": "text/csv", "max_payload_mb": 1},
        max_failed_fraction=0.5,
    )
    records = some_records(PER_SHARD)
    for number, text in enumerate(['a, "quoted" one', "two, commas,", '"', "x" * 1_100_000]):
        records[number]["text"] = text
    write_records(tmp_path / "in.jsonl", records)
    site.run()
    rows = site.publish(site.open())
    assert_every_record_once(rows, [record for number, record in enumerate(records) if number != 3])
    failures = site.failures()
    assert failures["error_code"].to_list() == ["too_long"]
    assert "1,100,0" in failures["error_message"][0]


def test_a_container_that_takes_one_json_object_a_call(rehearse: Rehearse, tmp_path: Path) -> None:
    one_by_one = {"content_type": "application/json", "strategy": "SingleRecord"}
    site = make_transform_site(rehearse(), tmp_path, 1, executor=one_by_one)
    site.run()
    assert_every_record_once(site.publish(site.open()), some_records(PER_SHARD))


def test_unexpected_output_stays_blocked_until_a_person_goes_on(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_transform_site(rehearse(), tmp_path, 2, executor={"model_name": "my-tokens"})
    site.run(until=lambda: site.ledger.money("texts").blocked is not None)
    jobs = len(site.rehearsal.jobs)
    # The next run of the same backfill queues its shards, and nothing is started for them.
    pipeline = site.open()
    with pytest.raises(SubmissionRefused, match="no pooling"):
        queue_shards(pipeline, [row.key for row in site.rows()])
    take_turn([pipeline])
    assert len(site.rehearsal.jobs) == jobs


def test_answers(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_transform_site(
        rehearse(), tmp_path, 1, task="generate", executor={"model_name": "my-text-list"}
    )
    site.run()
    rows = site.publish(site.open())
    texts = [str(record["text"]) for record in some_records(PER_SHARD)]
    assert rows["response"].to_list() == [f"It says: {' '.join(text.split()[:20])}" for text in texts]
