"""Shards at a rehearsed AWS Batch: arrays of real worker processes, under faults, with nothing lost."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from batch_assets.control.cleanup import remove_leftovers
from batch_assets.control.loop import take_turn
from batch_assets.control.stopping import stop_pipeline
from batch_assets.embeddings.accounting import account_shard
from batch_assets.embeddings.marker import read_marker
from batch_assets.errors import ConfigurationError, SubmissionRefused
from batch_assets.ledger.states import State
from batch_assets_tests.command import some_records
from batch_assets_tests.control.dying import DIED, KEPT, LOST, Death, named, run_and_die
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.sites import PER_SHARD
from batch_assets_tests.waiting import wait_until
from batch_assets_tests.workers import WorkerSite, assert_all_published, make_worker_site

Rehearse = Callable[..., Rehearsal]
RETENTION = dict.fromkeys(("requests", "results", "superseded", "merged"), "1h")


def run_in_arrays_of(site: WorkerSite, size: int) -> None:
    """As `run`, where an array takes no more than `size`."""
    pipeline = site.plan()
    pipeline.executor.array_jobs = size  # type: ignore[attr-defined]

    def done() -> bool:
        site.step(pipeline)
        return site.done()

    wait_until(done, site.states)


def test_several_shards_are_one_array_and_one_alone_a_plain_job(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_worker_site(
        rehearse(), tmp_path, shards=3, executor={"usd_per_hour": 3.0}, retention=RETENTION
    )
    site.run()
    assert site.sizes() == [3]
    assert_all_published(site, some_records(3 * PER_SHARD))
    assert set(site.runs().values()) == {1}
    assert site.spent() > 0
    site.rehearsal.client("s3").put_object(
        Bucket=site.rehearsal.bucket, Key="in/more.jsonl", Body=b'{"id": "last", "text": "one more"}\n'
    )
    site.run()
    assert site.sizes() == [3, 1]
    records: list[dict[str, Any]] = [*some_records(3 * PER_SHARD), {"id": "last", "text": "one more"}]
    assert_all_published(site, records)
    # What was sent goes in time, and what a lost ledger is rebuilt from stays.
    pipeline = site.open()
    remove_leftovers(pipeline, time.time() + 7200)
    assert not list(pipeline.storage.list("jobs/manifests"))
    site.without_ledger().run()
    assert site.sizes() == [3, 1]


def test_more_shards_than_an_array_takes_are_several(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_worker_site(rehearse(), tmp_path, shards=5)
    run_in_arrays_of(site, 2)
    assert sorted(site.sizes()) == [1, 2, 2]
    assert_all_published(site, some_records(5 * PER_SHARD))


def test_only_what_failed_is_run_again_and_after_its_attempts_given_up(
    rehearse: Rehearse, tmp_path: Path
) -> None:
    records = some_records(3 * PER_SHARD)
    site = make_worker_site(rehearse(), tmp_path, shards=3, executor={"max_attempts": 2})
    mended = site.crash_on(str(records[PER_SHARD]["text"]))
    site.run()
    assert site.sizes() == [3, 1]
    assert site.states() == ["collected", "exhausted", "collected"]
    row = site.rows()[1]
    assert "exit code 3" in str(row.error)
    assert list(site.runs().values()) == [1, 2, 1]
    mended.touch()
    site.ledger.retry("texts")
    site.run()
    assert site.sizes() == [3, 1, 1]
    assert_all_published(site, records)


def test_a_spot_machine_that_is_taken_away_costs_the_shard_no_attempt(
    rehearse: Rehearse, tmp_path: Path
) -> None:
    rehearsal = rehearse(batch={"interrupted": 1.0, "killed_after": (0.2, 0.2)})
    site = make_worker_site(rehearsal, tmp_path, executor={"max_attempts": 1, "retry": {"attempts": 10}})
    site.upload()
    (array,) = rehearsal.server.batch_jobs.all()
    wait_until(lambda: any(child.attempts for child in array.children), lambda: array)
    rehearsal.change(batch={"interrupted": 0.0})
    site.run()
    assert site.sizes() == [3]
    assert any(len(child.attempts) > 1 for child in array.children)
    assert_all_published(site, some_records(3 * PER_SHARD))


def test_a_worker_that_runs_twice_at_once_changes_nothing(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_worker_site(rehearse(batch={"doubled": 1.0}), tmp_path, shards=2)
    site.run()
    assert_all_published(site, some_records(2 * PER_SHARD))
    pipeline = site.open()
    for shard in pipeline.plan_shards(row.key for row in site.rows()).values():
        found = read_marker(pipeline.storage, shard.key)
        assert found is not None
        account_shard(pipeline.storage, shard.records, found[0])


def test_an_answer_that_is_lost_starts_no_second_array(
    rehearse: Rehearse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batch_assets.control.uploading.ANSWER_SECONDS", 0.0)
    rehearsal = rehearse(calls={"lost_responses": 1.0})
    site = make_worker_site(rehearsal, tmp_path)
    pipeline = site.upload()
    assert site.states() == ["submitting"] * 3
    rehearsal.change(calls={"lost_responses": 0.0})
    site.clock.ahead += 60
    take_turn([pipeline])
    assert set(site.states()) <= {"submitted", "running", "succeeded"}
    site.run()
    assert site.sizes() == [3]
    assert_all_published(site, some_records(3 * PER_SHARD))


def test_a_double_that_the_service_shows_late_is_ended(
    rehearse: Rehearse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batch_assets.control.uploading.ANSWER_SECONDS", 0.0)
    rehearsal = rehearse(calls={"lost_responses": 1.0}, batch={"timing": {"running": (3_000, 3_000)}})
    site = make_worker_site(rehearsal, tmp_path)
    pipeline = site.upload()
    rehearsal.change(calls={"lost_responses": 0.0})
    site.clock.ahead += 60
    take_turn([pipeline])
    (array,) = rehearsal.server.batch_jobs.all()
    double = rehearsal.client("batch").submit_job(**array.request)["jobId"]
    site.clock.ahead += 60
    take_turn([pipeline])
    assert rehearsal.server.batch_jobs.by_id[double].terminated
    site.run()
    assert array.status == "SUCCEEDED"
    assert_all_published(site, some_records(3 * PER_SHARD))
    assert set(site.runs().values()) == {1}


def test_a_ledger_that_is_lost_knows_the_array_again(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(batch={"timing": {"running": (2_000, 2_000)}})
    site = make_worker_site(rehearsal, tmp_path)
    site.upload()
    later = site.without_ledger()
    later.open()
    assert set(later.states()) <= {"submitted", "running"}
    assert later.ledger.counts("texts")[State.QUEUED] == 0
    later.run()
    assert site.sizes() == [3]
    assert_all_published(later, some_records(3 * PER_SHARD))


def test_stopped_and_taken_up_again(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(batch={"hangs": 1.0})
    site = make_worker_site(rehearsal, tmp_path, executor={"max_attempts": 1})
    pipeline = site.upload()
    stopped = stop_pipeline(pipeline, seconds=20)
    assert (stopped.ended, stopped.running) == (1, 0)
    assert site.states() == ["stopped"] * 3
    rehearsal.change(batch={"hangs": 0.0})
    site.run()
    assert_all_published(site, some_records(3 * PER_SHARD))


def test_events_tell_of_children_while_the_array_goes_on(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(events={"doubled": 0.5}, batch={"events": {"doubled": 0.5}})
    site = make_worker_site(
        rehearsal, tmp_path, executor={"queue_url": rehearsal.queue(), "poll_seconds": 600}
    )
    site.clock.leaps = False
    site.run()
    assert site.sizes() == [3]
    assert_all_published(site, some_records(3 * PER_SHARD))


def test_a_cap_on_calls_is_shared_by_the_workers_alive(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_worker_site(rehearse(), tmp_path, shards=3, calls_per_second=10, executor={"max_children": 2})
    pipeline = site.upload()
    assert site.sizes() == [2]
    manifests = [info.path for info in pipeline.storage.list("jobs/manifests")]
    assert orjson.loads(pipeline.storage.read(manifests[0]))["settings"]["calls_per_second"] == 5.0
    site.run()
    assert_all_published(site, some_records(3 * PER_SHARD))


def test_what_cannot_work_is_refused_before_anything_runs(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(batch={"queues": ["embeddings"]})
    local = make_worker_site(rehearsal, tmp_path, output={"root": str(tmp_path / "out")})
    with pytest.raises(ConfigurationError, match="the workers are on others"):
        local.account.executor(local.settings).check()
    missing = local.with_executor(job_queue="nowhere")
    with pytest.raises(ConfigurationError, match=r"there is no job queue 'nowhere'"):
        missing.account.executor(
            missing.settings.model_copy(
                update={"output": make_worker_site(rehearsal, tmp_path).settings.output}
            )
        ).check()
    undefined = make_worker_site(rehearsal, tmp_path, executor={"image": None, "job_definition": "nothing:7"})
    with pytest.raises(SubmissionRefused, match="job definition"):
        undefined.upload()
    assert undefined.sizes() == []


DEATHS = [
    ("pool-described", 1, KEPT),
    ("workers-told", 1, LOST),
    ("job-started", 1, KEPT),
    ("job-started", 1, LOST),
    ("workers-noted", 1, KEPT),
    ("marker-adopted", 1, KEPT),
    ("marker-adopted", 1, LOST),
]


@pytest.mark.parametrize("death", DEATHS, ids=named)
def test_dead_at_any_point_it_goes_on(rehearse: Rehearse, tmp_path: Path, death: Death) -> None:
    point, count, ledger_is_lost = death
    site = make_worker_site(rehearse(), tmp_path, shards=2)
    assert run_and_die(site.settings, tmp_path, site.rehearsal.environment, point, count) == DIED
    later = site.without_ledger() if ledger_is_lost else site.opened_again()
    later.run()
    assert later.sizes() == [2]
    assert_all_published(later, some_records(2 * PER_SHARD))
    assert set(later.runs().values()) == {1}
