"""Jobs that fail as a whole, one after the other: a probe, then nothing more, no record lost, and on by a word."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batch_assets.control.alerts import alerts_of
from batch_assets.control.collection import collect_shards
from batch_assets.control.loop import Turn, take_turn
from batch_assets.control.reconciler import BY_ORDER
from batch_assets.control.retrying import retry_shards
from batch_assets.control.status import read_status
from batch_assets.control.stopping import cancel_active
from batch_assets.errors import SubmissionRefused
from batch_assets.ledger.rows import WholeFailure
from batch_assets.ledger.states import BreakerState, State
from batch_assets.notifications.base import Notification
from batch_assets.retry_policy import WHOLE_FAILURES_OF_ARRAY
from batch_assets_tests.command import some_records, write_records
from batch_assets_tests.control.dying import DIED, run_and_die
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.sites import PER_SHARD, Site, assert_every_record_once, assert_whole, make_site
from batch_assets_tests.transforming import bring_on_first_shard, make_transform_site
from batch_assets_tests.waiting import wait_until
from batch_assets_tests.workers import assert_all_published, make_worker_site

Rehearse = Callable[..., Rehearsal]
SHARDS = 6
FORBIDDEN = "You do not have access to the model"
ONE_AT_A_TIME = {"min_records": 5, "concurrent_jobs": 1}


def is_open(site: Site) -> bool:
    row = site.ledger.breaker("texts")
    return row is not None and row.state is BreakerState.OPEN


def until_open(site: Site) -> None:
    """Run until nothing more is submitted, and nothing is under way."""

    def stands() -> bool:
        moving = (State.SUBMITTING, State.SUBMITTED, State.RUNNING, State.COLLECTING)
        return is_open(site) and not any(row.state in moving for row in site.rows())

    site.run(until=stands)


def go_on(site: Site) -> None:
    retry_shards(site.settings, site.ledger, None, recompute=False)
    site.run()


def told(site: Site) -> list[Notification]:
    """What is told in three turns, each thing once."""
    found: list[Notification] = []
    for _ in range(3):
        found += [one for one in alerts_of(site.open(), Turn()) if site.ledger.notice_once(one.key)]
    return found


def test_one_error_of_all_records_stops_after_a_probe_and_costs_no_record(
    rehearse: Rehearse, tmp_path: Path
) -> None:
    rehearsal = rehearse(records={"forbidden": 1}, quotas=ONE_AT_A_TIME)
    site = make_site(rehearsal, tmp_path, SHARDS)
    first = bring_on_first_shard(site)
    assert first.continued is not None and first.continued.waits
    until_open(site)
    assert len(rehearsal.jobs) == 2
    blocked = read_status(site.settings, site.ledger).blocked
    assert blocked is not None and blocked.startswith(FORBIDDEN)
    assert "role's permissions" in blocked and "`batch-assets retry texts`" in blocked
    [notification] = told(site)
    assert FORBIDDEN in notification.happened and notification.command.startswith("batch-assets retry texts")
    for _ in range(3):
        site.clock.ahead += 600
        assert take_turn([site.open()]).refused["texts"].startswith(FORBIDDEN)
    assert len(rehearsal.jobs) == 2
    assert {row.failed for row in site.rows()} == {0} and State.COLLECTED not in site.states()
    rehearsal.change(records={"forbidden": 0})
    go_on(site)
    assert_whole(site, SHARDS)
    assert len(rehearsal.jobs) == SHARDS + 2
    assert site.spent() == pytest.approx(site.billed())
    assert site.ledger.breaker("texts") is None


def test_jobs_under_way_are_the_probe(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(
        records={"forbidden": 1},
        quotas={"min_records": 5, "concurrent_jobs": 3},
        timing={"running": (10**6, 10**6)},
    )
    site = make_site(rehearsal, tmp_path, SHARDS)
    pipeline = site.upload()
    rehearsal.let_pass(10**6 + 100)
    wait_until(lambda: not any(job.active for job in rehearsal.jobs), lambda: rehearsal.jobs)
    site.clock.ahead += 10
    take_turn([pipeline], submit=False)
    assert all(result.continued and result.continued.waits for result in site.collect(pipeline))
    assert is_open(site) and len(rehearsal.jobs) == 3
    assert {row.failed for row in site.rows()} == {0}


@pytest.mark.parametrize("fault", [{"role_reads_buckets": False}, {"fail_running": 1}])
def test_job_after_job_that_fails_with_one_message(
    rehearse: Rehearse, tmp_path: Path, fault: dict[str, object]
) -> None:
    rehearsal = rehearse(jobs=fault, quotas=ONE_AT_A_TIME)
    site = make_site(rehearsal, tmp_path, SHARDS)
    until_open(site)
    jobs = len(rehearsal.jobs)
    site.clock.ahead += 600
    take_turn([site.open()])
    assert len(rehearsal.jobs) == jobs
    assert State.COLLECTED not in site.states()
    rehearsal.change(jobs={"role_reads_buckets": True, "fail_running": 0})
    go_on(site)
    assert_whole(site, SHARDS)


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_single_shard_is_its_own_probe(rehearse: Rehearse, tmp_path: Path, attempts: int) -> None:
    rehearsal = rehearse(jobs={"fail_running": 1})
    site = make_site(rehearsal, tmp_path, 1, executor={"max_attempts": attempts})
    until_open(site)
    assert len(rehearsal.jobs) == min(attempts + 1, 3)
    assert [row.failed for row in site.rows()] == [0]
    rehearsal.change(jobs={"fail_running": 0})
    go_on(site)
    assert_whole(site, 1)


def test_a_changed_setting_goes_on_with_a_probe(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(records={"forbidden": 1}, quotas=ONE_AT_A_TIME)
    site = make_site(rehearsal, tmp_path, SHARDS)
    bring_on_first_shard(site)
    until_open(site)
    other = site.with_executor(role_arn="arn:aws:iam::123456789012:role/another")
    other.run(until=lambda: is_open(other) and len(rehearsal.jobs) == 3)
    for _ in range(3):
        other.clock.ahead += 600
        take_turn([other.open()])
    assert len(rehearsal.jobs) == 3, "one job has shown that it is no better"
    rehearsal.change(records={"forbidden": 0})
    mended = site.with_executor(role_arn="arn:aws:iam::123456789012:role/mended")
    mended.run()
    assert_whole(mended, SHARDS)


def test_what_a_person_insists_on_comes_to_its_end(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(records={"forbidden": 1})
    site = make_site(rehearsal, tmp_path, 1, executor={"max_attempts": 2}, max_failed_fraction=1.0)
    until_open(site)
    retry_shards(site.settings, site.ledger, None, recompute=False)
    until_open(site)
    assert len(told(site)) == 1
    assert [row.failed for row in site.rows()] == [0]
    go_on(site)
    assert [row.failed for row in site.rows()] == [PER_SHARD]
    assert len(rehearsal.jobs) == 4
    assert read_status(site.settings, site.ledger).blocked is None, "nothing is held back any more"
    assert told(site) == []


def test_nothing_is_said_to_wait_for_a_probe_where_no_job_waits(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_site(rehearse(), tmp_path, 1)
    site.run()
    [row] = site.rows()
    assert row.job is not None
    failure = WholeFailure(row.key, row.job, 1, "no access", "no access", site.ledger.now(), "digest")
    noted = site.ledger.failed_as_a_whole("texts", failure, 1)
    assert noted is not None and noted.state is BreakerState.PROBING
    assert read_status(site.settings, site.ledger).blocked is None


def test_a_bad_shard_among_good_ones_fails_by_itself(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_site(
        rehearse(quotas=ONE_AT_A_TIME), tmp_path, 3, max_failed_fraction=1.0, executor={"truncate": None}
    )
    records = some_records(3 * PER_SHARD)
    for record in records[:PER_SHARD]:
        record["text"] = f"{'x' * 50_001}"
    write_records(tmp_path / "in.jsonl", records)
    site.run()
    assert set(site.states()) == {"collected"}
    assert site.ledger.breaker("texts") is None


def test_partly_failing_jobs_are_not_slowed(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(records={"forbidden": 0.5}, seed=5)
    site = make_site(rehearsal, tmp_path, SHARDS, max_failed_fraction=1.0)
    site.run()
    assert len(rehearsal.jobs) == SHARDS
    assert site.ledger.breaker("texts") is None


def test_two_processes_send_one_probe(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(records={"forbidden": 1})
    site = make_site(rehearsal, tmp_path, SHARDS)
    bring_on_first_shard(site)
    rehearsal.change(timing={"running": (10**6, 10**6)})
    site.upload()
    other = site.opened_again()
    other.clock.ahead = site.clock.ahead
    for each in (site, other, site, other):
        each.clock.ahead += 10
        turn = take_turn([each.open()])
        assert turn.waiting["texts"].reason == "probing"
    assert len(rehearsal.jobs) == 2


def test_a_process_with_the_old_settings_lets_it_open(rehearse: Rehearse, tmp_path: Path) -> None:
    """As a daemon that has not loaded the changed YAML, beside the command that has."""
    rehearsal = rehearse(records={"forbidden": 1}, quotas=ONE_AT_A_TIME)
    site = make_site(rehearsal, tmp_path, SHARDS)
    bring_on_first_shard(site)
    until_open(site)
    other = site.with_executor(role_arn="arn:aws:iam::123456789012:role/another")

    def stands() -> bool:
        take_turn([site.open()])
        return is_open(other) and len(rehearsal.jobs) == 3

    other.run(until=stands)
    for _ in range(3):
        for each in (site, other):
            each.clock.ahead += 600
            take_turn([each.open()])
    assert is_open(site) and len(rehearsal.jobs) == 3


def test_what_is_to_end_and_may_not_be_ended_costs_no_other_shard(
    monkeypatch: pytest.MonkeyPatch, rehearse: Rehearse, tmp_path: Path
) -> None:
    rehearsal = rehearse(timing={"running": (10**6, 10**6)})
    site = make_site(rehearsal, tmp_path, 2)
    pipeline = site.upload()
    asked: list[str] = []

    def stop(job_id: str) -> None:
        asked.append(job_id)
        raise SubmissionRefused("AccessDeniedException: not authorized; allow bedrock:StopModelInvocationJob")

    monkeypatch.setattr(pipeline.executor, "stop", stop)
    cancel_active(pipeline)
    assert len(asked) == len(set(asked)) == len(rehearsal.jobs) == 2
    cancel_active(pipeline)
    assert len(asked) == 2, "each is asked once to end"


def test_a_transform_that_fails_job_after_job(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(transform={"fail": 1, "other_instances": 1})
    site = make_transform_site(rehearsal, tmp_path, SHARDS)
    until_open(site)
    jobs = len(rehearsal.jobs)
    site.clock.ahead += 600
    take_turn([site.open()])
    assert len(rehearsal.jobs) == jobs
    assert "AlgorithmError" in str(site.ledger.money("texts").blocked)
    assert {row.failed for row in site.rows()} == {0}
    rehearsal.change(transform={"fail": 0})
    go_on(site)
    assert_every_record_once(site.publish(site.open()), some_records(SHARDS * PER_SHARD))


def test_workers_that_cannot_do_it_are_stopped(rehearse: Rehearse, tmp_path: Path) -> None:
    records = some_records(4 * PER_SHARD)
    site = make_worker_site(rehearse(), tmp_path, shards=4)
    mended = [site.crash_on(str(records[number * PER_SHARD]["text"])) for number in range(4)][-1]
    until_open(site)
    jobs = len(site.sizes())
    site.clock.ahead += 600
    take_turn([site.open()])
    assert len(site.sizes()) == jobs
    assert "exhausted" not in site.states()
    assert "exit code 3" in str(site.ledger.money("texts").blocked)
    mended.touch()
    go_on(site)
    assert_all_published(site, records)


def test_a_few_crashed_workers_of_an_array_end_no_other(rehearse: Rehearse, tmp_path: Path) -> None:
    records = some_records(4 * PER_SHARD)
    site = make_worker_site(rehearse(), tmp_path, shards=4)
    mended = [site.crash_on(str(records[number * PER_SHARD]["text"])) for number in range(3)][-1]
    pipeline = site.upload()

    def ended() -> bool:
        take_turn([pipeline])
        return not any(job.status == "RUNNING" for job in site.rehearsal.server.batch_jobs.all()) and all(
            row.state in (State.SUCCEEDED, State.FAILED) for row in site.rows()
        )

    wait_until(ended, site.states)
    crashed = [row.key for row in site.rows() if row.state is State.FAILED]
    assert len(crashed) == 3
    list(collect_shards(pipeline, crashed))
    assert not is_open(site)
    assert all(submission.message != BY_ORDER for submission in site.ledger.submissions(pipeline="texts"))
    site.collect(pipeline)
    assert site.ledger.breaker("texts") is None, "the fourth did well"
    mended.touch()
    site.run()
    assert_all_published(site, records)


def test_what_is_left_of_an_array_is_ended_after_many_failures(rehearse: Rehearse, tmp_path: Path) -> None:
    crashing = WHOLE_FAILURES_OF_ARRAY
    records = some_records((crashing + 1) * PER_SHARD)
    records[-PER_SHARD]["text"] = "a text that no other shard has"
    site = make_worker_site(rehearse(), tmp_path, shards=crashing + 1)
    write_records(tmp_path / "in.jsonl", records)
    site.rehearsal.client("s3").upload_file(str(tmp_path / "in.jsonl"), site.rehearsal.bucket, "in/in.jsonl")
    firsts = [str(records[number * PER_SHARD]["text"]) for number in range(crashing + 1)]
    mended = [site.crash_on(text) for text in firsts[:-1]][-1]
    model = Path(site.settings.model.id) / "model.py"
    waits = (
        f"while {firsts[-1]!r} in [item['text'] for item in items] and not os.path.exists({str(mended)!r}):"
    )
    model.write_text(
        model.read_text().replace(
            "        import os\n",
            f"        import os, time\n        {waits}\n            time.sleep(0.05)\n",
            1,
        )
    )
    pipeline = site.upload()

    def crashed() -> bool:
        take_turn([pipeline])
        return site.states().count(State.FAILED) == crashing

    wait_until(crashed, site.states)
    site.collect(pipeline)
    until_open(site)
    assert {job.status for job in site.rehearsal.server.batch_jobs.all()} == {"FAILED"}, "none goes on"
    mended.touch()
    go_on(site)
    assert_all_published(site, records)


def test_dead_after_noting_it_counts_once(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(records={"forbidden": 1}, quotas=ONE_AT_A_TIME)
    site = make_site(rehearsal, tmp_path, SHARDS)
    assert run_and_die(site.settings, tmp_path, rehearsal.environment, "whole-failure-noted", 1) == DIED
    later = site.opened_again()
    pipeline = later.open()
    keys = [row.key for row in later.ledger.finished("texts", 100)]
    [result] = collect_shards(pipeline, keys)
    assert result.continued is not None and result.continued.waits
    row = later.ledger.breaker("texts")
    assert row is not None and (row.state, row.failures) == (BreakerState.PROBING, 1)
    until_open(later)
    rehearsal.change(records={"forbidden": 0})
    go_on(later)
    assert_whole(later, SHARDS)


def test_a_lost_ledger_costs_a_job_and_a_probe(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(records={"forbidden": 1}, quotas=ONE_AT_A_TIME)
    site = make_site(rehearsal, tmp_path, SHARDS)
    until_open(site)
    later = site.without_ledger()
    until_open(later)
    assert State.COLLECTED not in later.states()
    rehearsal.change(records={"forbidden": 0})
    go_on(later)
    assert_whole(later, SHARDS)
