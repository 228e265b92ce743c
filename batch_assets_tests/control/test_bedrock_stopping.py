"""Orders of a person: stop, go on, try failed records again, compute everything again."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from batch_assets.control.retrying import retry_shards
from batch_assets.control.stopping import stop_pipeline
from batch_assets.executors.bedrock.service import BedrockService
from batch_assets.executors.service_jobs import Unanswered
from batch_assets.ledger.states import State
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.sites import PER_SHARD, assert_whole, make_site
from batch_assets_tests.waiting import PATIENCE_SECONDS

Rehearse = Callable[..., Rehearsal]
SHARDS = 3
LONG = {"running": (10**5, 10**5)}


@pytest.mark.parametrize("progress", [0, 40_000])
def test_stopped_jobs_are_settled_and_the_rest_goes_on_later(
    rehearse: Rehearse, tmp_path: Path, progress: float
) -> None:
    rehearsal = rehearse(quotas={"concurrent_jobs": 2}, timing=LONG)
    site = make_site(rehearsal, tmp_path, SHARDS)
    pipeline = site.upload()
    rehearsal.let_pass(progress)
    stopped = stop_pipeline(pipeline, PATIENCE_SECONDS)
    assert (stopped.waiting, stopped.ended, stopped.running) == (1, 2, 0)
    assert not any(job.active for job in rehearsal.jobs)
    assert set(site.states()) == {State.STOPPED}
    paid = sum(known.paid for known in rehearsal.server.books.processed.values())
    assert bool(paid) == bool(progress)
    # Nothing begins by itself while the order stands.
    for _ in range(3):
        site.step(pipeline)
    assert len(rehearsal.jobs) == 2
    rehearsal.change(timing={"running": (1, 1)})
    uploads = [key for key in rehearsal.objects("staging/") if key.endswith(".jsonl")]
    site.run()
    assert_whole(site, SHARDS)
    assert {job["attempt"] for job in descriptions(site.folder)} == {1}, "a stop costs no attempt"
    assert set(uploads) <= set(rehearsal.objects("staging/"))
    assert rehearsal.sent() == SHARDS * PER_SHARD
    assert site.spent() == pytest.approx(site.billed())


def test_stopping_too_late_loses_nothing(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(timing=LONG, jobs={"stop_race": 1})
    site = make_site(rehearsal, tmp_path, SHARDS)
    pipeline = site.upload()
    rehearsal.let_pass(100)
    stop_pipeline(pipeline, PATIENCE_SECONDS)
    assert set(site.states()) == {State.SUCCEEDED}
    site.run()
    assert_whole(site, SHARDS)
    assert len(rehearsal.jobs) == SHARDS


def test_stopping_twice_and_a_stop_before_anything(rehearse: Rehearse, tmp_path: Path) -> None:
    site = make_site(rehearse(), tmp_path, SHARDS)
    pipeline = site.plan()
    assert stop_pipeline(pipeline, PATIENCE_SECONDS).ended == 0
    assert stop_pipeline(pipeline, PATIENCE_SECONDS).running == 0
    site.run()
    assert_whole(site, SHARDS)


def test_retry_pays_for_failed_records_alone(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(records={"refused": 0.3})
    site = make_site(rehearsal, tmp_path, SHARDS, max_failed_fraction=1.0)
    site.run()
    failed = sum(row.failed for row in site.rows())
    assert 0 < failed < SHARDS * PER_SHARD
    rows = site.publish(site.open())
    before = rehearsal.sent()
    rehearsal.change(records={"refused": 0})
    again = retry_shards(site.settings, site.ledger, None, recompute=False)
    assert again
    site.run()
    assert_whole(site, SHARDS)
    assert rehearsal.sent() == before + failed
    assert len(rows) == SHARDS * PER_SHARD - failed
    assert site.spent() == pytest.approx(site.billed())
    assert retry_shards(site.settings, site.ledger, None, recompute=False) == []


def test_retry_again_and_again_keeps_what_every_time_has_brought(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(records={"refused": 0.6})
    site = make_site(rehearsal, tmp_path, SHARDS, max_failed_fraction=1.0)
    site.run()
    for rate in (0.3, 0.0):
        rehearsal.change(records={"refused": rate})
        retry_shards(site.settings, site.ledger, None, recompute=False)
        site.run()
    assert_whole(site, SHARDS)
    assert site.spent() == pytest.approx(site.billed())


def test_a_retried_shard_whose_retry_is_partial(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(records={"refused": 0.7})
    site = make_site(rehearsal, tmp_path, 2, max_failed_fraction=1.0, executor={"max_attempts": 5})
    site.run()
    rehearsal.change(records={"refused": 0}, jobs={"partial": 1})
    retry_shards(site.settings, site.ledger, None, recompute=False)
    site.first_round()
    site.run(until=lambda: len(rehearsal.jobs) > 2 or site.done())
    rehearsal.change(jobs={"partial": 0})
    site.run()
    assert_whole(site, 2)


def test_recompute_pays_for_everything_again(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse()
    site = make_site(rehearsal, tmp_path, SHARDS)
    site.run()
    once = site.billed()
    retry_shards(site.settings, site.ledger, ["g0001-00001"], recompute=True)
    site.run()
    assert rehearsal.sent() == (SHARDS + 1) * PER_SHARD
    assert rehearsal.paid_twice() == PER_SHARD
    assert once < site.billed() == pytest.approx(site.spent())
    assert len(site.publish(site.open())) == SHARDS * PER_SHARD


def test_exhausted_shards_start_anew(rehearse: Rehearse, tmp_path: Path) -> None:
    """A source that cannot be read gives its shard up; mended, `retry` takes it up again."""
    rehearsal = rehearse()
    site = make_site(rehearsal, tmp_path, 2)
    pipeline = site.plan()
    content = (tmp_path / "in.jsonl").read_bytes()
    stat = (tmp_path / "in.jsonl").stat()
    (tmp_path / "in.jsonl").unlink()
    site.upload(pipeline)
    assert set(site.states()) == {State.EXHAUSTED}
    (tmp_path / "in.jsonl").write_bytes(content)
    os.utime(tmp_path / "in.jsonl", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    retry_shards(site.settings, site.ledger, None, recompute=False)
    site.run()
    assert_whole(site, 2)


def descriptions(folder: Path) -> list[dict[str, object]]:
    """The descriptions of all jobs."""
    return [orjson.loads(file.read_bytes()) for file in (folder / "out" / "jobs").glob("*/*/job.json")]


@pytest.mark.parametrize("recompute", [False, True], ids=["retry", "recompute"])
def test_what_was_spent_before_a_retry_is_known_to_a_new_ledger(
    rehearse: Rehearse, tmp_path: Path, recompute: bool
) -> None:
    rehearsal = rehearse(records={"refused": 0.5})
    site = make_site(rehearsal, tmp_path, 2, max_failed_fraction=1.0)
    site.run()
    rehearsal.change(records={"refused": 0})
    retry_shards(site.settings, site.ledger, None, recompute=recompute)
    site.run()
    assert site.spent() == pytest.approx(site.billed())
    new = site.without_ledger()
    new.run()
    assert new.spent() == pytest.approx(new.billed())


def test_a_retry_under_way_when_the_ledger_is_lost(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(records={"refused": 0.5})
    site = make_site(rehearsal, tmp_path, 2, max_failed_fraction=1.0, executor={"min_records": 1})
    site.run()
    failed = sum(row.failed for row in site.rows())
    rehearsal.change(records={"refused": 0}, quotas={"min_records": 1}, timing=LONG)
    before = rehearsal.sent()
    retry_shards(site.settings, site.ledger, None, recompute=False)
    site.upload()
    rehearsal.change(timing={"running": (1, 1)})
    rehearsal.let_pass(10**5 + 10)
    new = site.without_ledger()
    new.run()
    assert_whole(new, 2)
    assert rehearsal.sent() == before + failed
    assert new.spent() == pytest.approx(new.billed())


def test_a_call_without_an_answer_is_not_made_again_after_the_order_to_stop(
    rehearse: Rehearse, tmp_path: Path
) -> None:
    rehearsal = rehearse(timing=LONG)
    site = make_site(rehearsal, tmp_path, 1)

    def unanswered(*_: Any, **__: Any) -> str:
        raise Unanswered("no answer")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BedrockService, "create", unanswered)
        pipeline = site.upload()
    assert site.states() == [State.SUBMITTING]
    site.clock.ahead += 60
    stopped = stop_pipeline(pipeline, PATIENCE_SECONDS)
    assert stopped.running == 0
    assert rehearsal.jobs == []
    assert site.states() == [State.STOPPED]
    rehearsal.change(timing={"running": (1, 1)})
    site.run()
    assert_whole(site, 1)
    assert len(rehearsal.jobs) == 1
