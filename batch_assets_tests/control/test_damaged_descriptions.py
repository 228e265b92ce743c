"""A `job.json` that is gone or damaged concerns its shard alone, with a ledger or without one, and is named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batch_assets import paths
from batch_assets.control.loop import take_turn
from batch_assets.ledger.states import State
from batch_assets.storage import open_storage
from batch_assets_tests.command import some_records
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.sites import PER_SHARD, Site, assert_whole, make_site
from batch_assets_tests.waiting import wait_until
from batch_assets_tests.workers import assert_all_published, make_worker_site

Rehearse = Callable[..., Rehearsal]
POOLED = 5
HARMS = [b"{}", None]
"""What is written in a file's place: nothing that makes sense, or no file at all."""


def harm(site: Site, path: str, content: bytes | None) -> None:
    storage = open_storage(site.settings.output.root)
    assert storage.info(path) is not None
    if content is None:
        storage.delete([path])
    else:
        storage.write(path, content)


def description_of(site: Site, place: int) -> str:
    """Where the newest job of a shard is described."""
    row = site.rows()[place]
    return paths.job_description(row.key, row.job)


def with_pool(rehearse: Rehearse, folder: Path) -> Site:
    """Each of five shards had a job that left one record over, and the five records are a job, which goes on."""
    rehearsal = rehearse(output={"cut_tail": 1}, quotas={"concurrent_jobs": POOLED})
    site = make_site(rehearsal, folder, POOLED, executor={"remainder": "pool"})
    pipeline = site.first_round()
    rehearsal.change(output={"cut_tail": 0})
    site.collect(pipeline)
    site.run(until=lambda: len(rehearsal.jobs) > POOLED)
    return site


@pytest.mark.parametrize("content", HARMS)
@pytest.mark.parametrize("place", [0, 3])
def test_the_others_of_a_pool_are_known_again_without_the_ledger(
    rehearse: Rehearse, tmp_path: Path, caplog: pytest.LogCaptureFixture, place: int, content: bytes | None
) -> None:
    site = with_pool(rehearse, tmp_path)
    path = description_of(site, place)
    harm(site, path, content)
    later = site.without_ledger()
    later.run()
    assert set(later.states()) == {State.COLLECTED}
    assert later.publish(later.open())["record_id"].to_list() == [
        record["id"] for record in some_records(POOLED * PER_SHARD)
    ]
    # The one shard goes on from its job before, of which one record was left over.
    assert len(site.rehearsal.jobs) == POOLED + 1
    assert site.rehearsal.paid_twice() == 1
    assert content is None or f"{tmp_path}/out/{path} is damaged" in caplog.text


def test_a_damaged_list_of_a_pool_stops_no_other_job(
    rehearse: Rehearse, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = with_pool(rehearse, tmp_path)
    (pool,) = (tmp_path / "out" / "jobs" / "pools").glob("*.json")
    pool.write_bytes(b"{")
    later = site.without_ledger()
    later.run()
    assert set(later.states()) == {State.COLLECTED}
    assert f"{pool} is damaged" in caplog.text


@pytest.mark.parametrize("content", HARMS)
def test_the_others_of_an_array_are_known_again_without_the_ledger(
    rehearse: Rehearse, tmp_path: Path, content: bytes | None
) -> None:
    rehearsal = rehearse(batch={"timing": {"running": (2_000, 2_000)}})
    site = make_worker_site(rehearsal, tmp_path)
    site.upload()
    first, *others = (row.key for row in site.rows())
    harm(site, description_of(site, 0), content)
    later = site.without_ledger()
    later.open()
    states = {row.key: row.state for row in later.rows()}
    assert states[first] is State.PLANNED
    assert {states[key] for key in others} <= {State.SUBMITTED, State.RUNNING, State.SUCCEEDED}
    later.run()
    assert site.sizes()[0] == 3
    assert {later.runs()[key] for key in others} == {1}
    assert_all_published(later, some_records(3 * PER_SHARD))


@pytest.mark.parametrize("content", HARMS)
def test_jobs_that_wait_go_on_beside_one_that_is_prepared_again(
    rehearse: Rehearse, tmp_path: Path, content: bytes | None
) -> None:
    rehearsal = rehearse(calls={"throttled": 1})
    site = make_site(rehearsal, tmp_path, 3)
    site.upload()
    assert site.states() == [State.QUEUED] * 3
    before = [row.job for row in site.rows()]
    harm(site, description_of(site, 0), content)
    rehearsal.change(calls={"throttled": 0})
    site.run()
    assert_whole(site, 3)
    names = [job.name for job in rehearsal.jobs]
    assert len(names) == 3
    for row, fence in list(zip(site.rows(), before, strict=True))[1:]:
        assert sum(f"-{row.key}-{fence}-" in name for name in names) == 1


@pytest.mark.parametrize("content", HARMS)
def test_an_array_whose_answer_was_lost_is_adopted_without_one_description(
    rehearse: Rehearse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    """The workers were told what to do in a manifest."""
    monkeypatch.setattr("batch_assets.control.uploading.ANSWER_SECONDS", 0.0)
    rehearsal = rehearse(calls={"lost_responses": 1.0})
    site = make_worker_site(rehearsal, tmp_path)
    pipeline = site.upload()
    assert site.states() == [State.SUBMITTING] * 3
    harm(site, description_of(site, 1), content)
    rehearsal.change(calls={"lost_responses": 0.0})
    site.clock.ahead += 60
    wait_until(lambda: take_turn([pipeline]) and State.SUBMITTING not in site.states(), site.states)
    site.run()
    assert site.sizes() == [3]
    assert set(site.runs().values()) == {1}
    assert_all_published(site, some_records(3 * PER_SHARD))


@pytest.mark.parametrize("content", HARMS)
def test_a_pool_whose_answer_was_lost_is_adopted_without_one_description(
    rehearse: Rehearse, tmp_path: Path, content: bytes | None
) -> None:
    rehearsal = rehearse(output={"cut_tail": 1}, quotas={"concurrent_jobs": POOLED})
    site = make_site(rehearsal, tmp_path, POOLED, executor={"remainder": "pool"})
    pipeline = site.first_round()
    rehearsal.change(output={"cut_tail": 0}, calls={"lost_responses": 1.0})
    site.collect(pipeline)
    site.run(until=lambda: site.states() == [State.SUBMITTING] * POOLED)
    assert len(rehearsal.jobs) == POOLED + 1
    harm(site, description_of(site, 0), content)
    rehearsal.change(calls={"lost_responses": 0.0})
    site.clock.ahead += 60
    wait_until(lambda: take_turn([pipeline]) and State.SUBMITTING not in site.states(), site.states)
    wait_until(
        lambda: site.step(pipeline) and site.states().count(State.COLLECTED) == POOLED - 1, site.states
    )
    assert len(rehearsal.jobs) == POOLED + 1
