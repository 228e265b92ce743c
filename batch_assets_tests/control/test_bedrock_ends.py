"""Every way in which a job can end: what has been answered is kept, the rest is tried again, none is paid twice."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batch_assets.control.loop import take_turn
from batch_assets.control.merging import merge_shards
from batch_assets.control.shard_result import Result
from batch_assets.embeddings.marker import read_marker
from batch_assets.errors import AccountingError
from batch_assets.ledger.states import State, SubmissionState
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.sites import PER_SHARD, Site, assert_whole, make_site

Rehearse = Callable[..., Rehearsal]
SHARDS = 2
RECORDS = SHARDS * PER_SHARD


def ends(site: Site) -> set[SubmissionState]:
    return {row.state for row in site.ledger.submissions(pipeline="texts")}


def test_on_a_calm_day_everything_is_paid_and_published_once(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_site(rehearse(), tmp_path, SHARDS)
    site.run()
    assert_whole(site, SHARDS)
    assert site.rehearsal.sent() == RECORDS
    assert site.spent() == pytest.approx(site.billed())
    marker = read_marker(site.open().storage, "g0001-00000")
    assert marker is not None
    assert marker[0].executor == "bedrock"
    assert marker[0].attempt == 1
    assert (marker[0].cost_usd or 0) * SHARDS == pytest.approx(site.billed(), rel=0.5)


def test_completed_with_every_record_failed(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_site(rehearse(jobs={"all_records_fail": 1}), tmp_path, SHARDS)
    pipeline = site.first_round()
    assert ends(site) == {SubmissionState.SUCCEEDED}
    site.rehearsal.change(jobs={"all_records_fail": 0})
    results = site.collect(pipeline)
    assert {result.result for result in results} == {Result.CONTINUED}
    assert [result.continued.again for result in results if result.continued] == [PER_SHARD] * SHARDS
    assert [result.continued.kept for result in results if result.continued] == [0] * SHARDS
    site.run()
    assert_whole(site, SHARDS)
    assert len(site.rehearsal.jobs) == 2 * SHARDS


@pytest.mark.parametrize("unfinished", ["missing", "expired", "both"])
def test_partially_completed(rehearse: Rehearse, tmp_path: Path, unfinished: str) -> None:
    site = make_site(rehearse(jobs={"partial": 1, "unfinished": unfinished}), tmp_path, SHARDS)
    pipeline = site.first_round()
    assert ends(site) == {SubmissionState.PARTIAL}
    paid = sum(known.paid for known in site.rehearsal.server.books.processed.values())
    assert 0 < paid < RECORDS
    site.rehearsal.change(jobs={"partial": 0})
    results = site.collect(pipeline)
    assert sum(result.continued.kept for result in results if result.continued) == paid
    site.run()
    assert_whole(site, SHARDS)
    assert site.spent() == pytest.approx(site.billed())


def test_expired_before_it_began(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_site(rehearse(jobs={"expire": 1}, timing={"hour": 1}), tmp_path, SHARDS)
    site.first_round()
    assert ends(site) == {SubmissionState.EXPIRED}
    assert site.rehearsal.sent() == 0
    site.rehearsal.change(jobs={"expire": 0}, timing={"hour": 3600})
    site.run()
    assert_whole(site, SHARDS)


@pytest.mark.parametrize("fault", ["fail_validation", "fail_running"])
def test_failed_with_a_message(rehearse: Rehearse, tmp_path: Path, fault: str) -> None:
    site = make_site(rehearse(jobs={fault: 1}), tmp_path, SHARDS)
    pipeline = site.first_round()
    assert ends(site) == {SubmissionState.FAILED}
    messages = {row.message for row in site.ledger.submissions(pipeline="texts")}
    assert all(message and "rror" in message for message in messages)
    site.rehearsal.change(jobs={fault: 0})
    [first, _] = site.collect(pipeline)
    assert first.continued is not None
    assert first.continued.reasons == {"job_failed": PER_SHARD}
    site.run()
    assert_whole(site, SHARDS)


def test_stopped_by_somebody_else(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_site(rehearse(timing={"running": (10**6, 10**6)}), tmp_path, SHARDS)
    pipeline = site.upload()
    bedrock = site.rehearsal.client("bedrock")
    for job in site.rehearsal.jobs:
        bedrock.stop_model_invocation_job(jobIdentifier=job.arn)
    site.rehearsal.change(timing={"running": (1, 1)})
    site.first_round()
    assert ends(site) == {SubmissionState.STOPPED}
    assert set(site.states()) == {"stopped"}
    site.collect(pipeline)
    # Nobody here ordered it: it was an attempt like any other.
    site.run()
    assert_whole(site, SHARDS)
    assert {row.attempt for row in site.rows()} == {2}


def test_a_job_that_vanishes_is_tried_again(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_site(rehearse(timing={"running": (10**6, 10**6)}), tmp_path, 1)
    pipeline = site.upload()
    site.rehearsal.server.jobs.by_id.clear()
    site.rehearsal.change(timing={"running": (1, 1)})
    site.clock.ahead += 3600
    take_turn([pipeline])
    assert site.states() == [State.FAILED]
    site.run()
    assert_whole(site, 1)


def test_attempts_spent_are_failed_records_with_their_reasons(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(records={"throttled": 0.8}, seed=3)
    site = make_site(rehearsal, tmp_path, SHARDS, executor={"max_attempts": 2}, max_failed_fraction=0.1)
    site.run()
    assert len(rehearsal.jobs) == 2 * SHARDS
    with pytest.raises(AccountingError, match="failed"):
        merge_shards(site.open())
    assert 0 < sum(row.failed for row in site.rows()) < RECORDS


def test_few_failed_records_are_published_with_reasons_and_many_block(
    rehearse: Rehearse, tmp_path: Path
) -> None:
    site = make_site(rehearse(records={"refused": 0.3}), tmp_path, SHARDS, max_failed_fraction=1.0)
    site.run()
    failed = sum(row.failed for row in site.rows())
    assert 0 < failed < RECORDS
    rows = site.publish(site.open())
    assert len(rows) == RECORDS - failed
    reasons = site.failures()
    assert len(reasons) == failed
    assert reasons["error_code"].unique().to_list() == ["service_400"]
    assert "content filters" in reasons["error_message"][0]
    # Refused once is refused for good: no second job.
    assert len(site.rehearsal.jobs) == SHARDS
    assert set(rows["record_id"]) & set(reasons["record_id"]) == set()
    strict = Site(
        site.rehearsal,
        tmp_path,
        site.settings.model_copy(update={"max_failed_fraction": failed / RECORDS / 2}),
        site.clock,
    )
    with pytest.raises(AccountingError, match="max_failed_fraction"):
        merge_shards(strict.open())
