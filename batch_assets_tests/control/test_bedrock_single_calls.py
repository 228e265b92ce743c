"""A model that Bedrock does not serve on demand: refused before anything is paid, or its leftover records wait."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batch_assets.errors import ConfigurationError, SubmissionRefused
from batch_assets.ledger.states import State
from batch_assets.settings.pipeline import ShardSettings
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.sites import PER_SHARD, assert_whole, make_site

Rehearse = Callable[..., Rehearsal]
SHARDS = 2


@pytest.mark.parametrize("remainder", ["on_demand", "pool"])
def test_too_few_records_for_a_job_are_refused_at_plan(
    rehearse: Rehearse, tmp_path: Path, remainder: str
) -> None:
    rehearsal = rehearse(on_demand={"served": False}, quotas={"min_records": PER_SHARD + 1})
    site = make_site(rehearsal, tmp_path, 1, executor={"remainder": remainder})
    site.settings = site.settings.model_copy(update={"shards": ShardSettings(records=50)})
    with pytest.raises(
        ConfigurationError, match=r"12 records .* fewer than 13.* PROVISIONED alone.* inference profile"
    ):
        site.plan()
    assert not (tmp_path / "out").exists()
    assert rehearsal.jobs == [] and rehearsal.calls("InvokeModel") == 0
    rehearsal.change(on_demand={"served": True})
    site.run()
    assert_whole(site, 1)


def test_left_over_records_of_a_model_without_calls_wait(rehearse: Rehearse, tmp_path: Path) -> None:
    """Known only by the first call: what says so is the service, and no attempt is spent."""
    rehearsal = rehearse(output={"cut_tail": 1}, on_demand={"served": False, "told": False})
    site = make_site(rehearsal, tmp_path, SHARDS)
    pipeline = site.first_round()
    site.collect(pipeline)
    before = [row.attempt for row in site.rows()]
    for _ in range(4):
        with pytest.raises(
            SubmissionRefused, match=r"with on-demand throughput isn.t supported.*inference profile"
        ):
            site.collect(pipeline)
    assert site.states() == [State.READY] * SHARDS
    assert [row.attempt for row in site.rows()] == before
    rehearsal.change(output={"cut_tail": 0}, on_demand={"served": True})
    site.run()
    assert_whole(site, SHARDS)
    assert sum(row.failed for row in site.rows()) == 0


def test_the_minimum_is_no_matter_where_every_shard_is_a_job(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(on_demand={"served": False})
    site = make_site(rehearsal, tmp_path, SHARDS)
    site.run()
    assert_whole(site, SHARDS)
