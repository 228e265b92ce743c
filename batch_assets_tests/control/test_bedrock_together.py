"""Everything at once: several workers on one pipeline, all faults together, ledgers lost on the way."""

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_assets.control.pipeline import Pipeline
from batch_assets.errors import StorageError
from batch_assets.executors.bedrock.executor import BedrockExecutor
from batch_assets.ledger.states import State
from batch_assets_tests.command import some_records, write_records
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.sites import PER_SHARD, Site, assert_every_record_once, assert_whole, make_site

Rehearse = Callable[..., Rehearsal]
SHARDS = 5
STORM: dict[str, Any] = {
    "calls": {"throttled": 0.1, "server_errors": 0.05, "lost_responses": 0.2},
    "jobs": {"fail_running": 0.1, "fail_validation": 0.05, "partial": 0.2, "expire": 0.05},
    "timing": {"hour": 300},  # a day takes 3.6 s: more than a slow machine needs to begin a job
    "records": {"throttled": 0.1, "internal": 0.05, "bad_output": 0.05, "bare_errors": 0.3},
    "output": {"cut_tail": 0.2, "late_manifest": 0.2, "absent": 0.05, "absent_manifest": 0.1,
               "missing_lines": 0.05, "doubled_lines": 0.1, "garbled_lines": 0.05, "foreign_lines": 0.1},
    "on_demand": {"throttled": 0.2, "unavailable": 0.1},
}  # fmt: skip


@pytest.mark.parametrize(("seed", "remainder"), [(0, "on_demand"), (1, "pool")])
def test_a_storm_in_which_ledgers_are_lost(
    rehearse: Rehearse, tmp_path: Path, seed: int, remainder: str
) -> None:
    rehearsal = rehearse(seed=seed, **STORM)
    chance = random.Random(seed)
    site = make_site(rehearsal, tmp_path, SHARDS, executor={"max_attempts": 60, "remainder": remainder})
    for _ in range(3):
        steps = chance.randrange(2, 12)
        pipeline = _opened(site)
        for _ in range(steps):
            if not site.done():
                site.step(pipeline)
        site = site.without_ledger()
    _opened(site)
    site.run()
    assert_whole(site, SHARDS)
    assert site.spent() >= site.billed() * 0.999


def _opened(site: Site) -> Pipeline:
    """Planned and recovered, however often the service has to be asked."""
    for _ in range(20):
        try:
            return site.plan()
        except StorageError:
            continue
    raise AssertionError("the service never answers")


def test_two_workers_at_once_do_everything_once(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(records={"throttled": 0.3}, output={"cut_tail": 0.3}, jobs={"partial": 0.2})
    first = make_site(rehearsal, tmp_path, SHARDS, executor={"max_attempts": 20})
    first.clock.leaps = False  # or what one holds would seem given up to the others
    first.upload()
    others = [Site(rehearsal, tmp_path, first.settings, first.clock) for _ in range(2)]
    errors: list[BaseException] = []

    def work(site: Site) -> None:
        try:
            site.run()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(site,)) for site in (first, *others)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    assert set(first.states()) == {State.COLLECTED}
    assert_whole(first, SHARDS)
    assert first.spent() == pytest.approx(first.billed())


def test_two_deployments_of_one_name_and_root_share_a_staging_area(
    rehearse: Rehearse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on two machines that both call their output /data/out."""
    monkeypatch.setattr(BedrockExecutor, "root_digits", "0d1e2f")
    rehearsal = rehearse(quotas={"concurrent_jobs": 2 * SHARDS}, output={"cut_tail": 1})
    sites = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        sites.append(make_site(rehearsal, tmp_path / str(number), SHARDS))
    other = some_records(SHARDS * PER_SHARD, first=1_000)
    write_records(tmp_path / "1" / "in.jsonl", other)
    rounds = [site.first_round() for site in sites]
    rehearsal.change(output={"cut_tail": 0})
    for site, pipeline in zip(sites, rounds, strict=True):
        site.collect(pipeline)
    for site in sites:
        site.run()
    for site, records in zip(sites, (some_records(SHARDS * PER_SHARD), other), strict=True):
        assert_every_record_once(site.publish(site.open()), records)
