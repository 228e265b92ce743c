"""`job_completion`: Dagster's picture follows the ledger's truth, and nothing else happens."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from batch_assets.ledger.holder import Holder
from batch_assets.ledger.schema import pipelines, shards
from batch_assets_tests.orchestration.deployments import (
    SHARD_ASSETS,
    Deployment,
    deploy,
    make_settings,
    write_shards,
)


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    write_shards(tmp_path, 3)
    with deploy(tmp_path) as deployment:
        deployment.plan()
        yield deployment


def embed(deployment: Deployment) -> None:
    keys = deployment.keys
    assert deployment.materialize(*SHARD_ASSETS, shards=(keys[0], keys[-1])).success


def forget_pictures(deployment: Deployment) -> None:
    """As if the process had died between each commit and its report to Dagster."""
    with deployment.ledger._database.write() as connection:
        connection.execute(sa.update(shards).values(picture_due=shards.c.revision))


def report(deployment: Deployment, result: dg.SensorResult) -> None:
    """What the daemon does with a tick's events."""
    for event in result.asset_events:
        deployment.instance.report_runless_asset_event(event)


def dead_holder() -> Holder:
    """A process of this host that has ended."""
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    here = Holder.current()
    return Holder(here.host, here.boot_id, int(ended.stdout), "1")


def started_run(deployment: Deployment) -> dg.DagsterRun:
    job = deployment.definitions.resolve_implicit_global_asset_job_def()
    selection = frozenset({dg.AssetKey(["texts", "embedding_outputs"])})
    return deployment.instance.create_run_for_job(
        job_def=job, asset_selection=selection, status=dg.DagsterRunStatus.STARTED
    )


def test_with_nothing_to_mend_it_says_so(deployment: Deployment) -> None:
    embed(deployment)
    result = deployment.tick("job_completion")
    assert not result.asset_events
    assert result.skip_reason is not None
    assert deployment.ledger.unpictured(10) == []


def test_committed_shards_that_are_not_shown_are_reported_once(deployment: Deployment) -> None:
    embed(deployment)
    keys = deployment.keys
    forget_pictures(deployment)
    # An instance that was told of nothing, not even of the partitions.
    with dg.DagsterInstance.ephemeral() as deployment.instance:
        result = deployment.tick("job_completion")
        assert [event.partition for event in result.asset_events] == deployment.keys == keys
        assert deployment.shown() == {}
        # "Test sensor" in the UI reports nothing, and takes nothing from the next real tick.
        assert len(deployment.tick("job_completion").asset_events) == 3
        report(deployment, result)
        assert set(deployment.shown().values()) == {"MATERIALIZED"}
        assert deployment.metadata_of("embedding_outputs", keys[0])["rows"] == 4
        assert not deployment.tick("job_completion").asset_events
        assert deployment.ledger.unpictured(10) == []


def test_a_shard_that_is_shown_failed_and_was_committed_becomes_materialized(deployment: Deployment) -> None:
    key = deployment.keys[0]
    assert not deployment.materialize("embedding_outputs", shards=(key, key)).success
    assert deployment.shown() == {key: "FAILED"}
    with dg.DagsterInstance.ephemeral() as elsewhere:
        here, deployment.instance = deployment.instance, elsewhere
        deployment.plan()
        embed(deployment)
        deployment.instance = here
    forget_pictures(deployment)
    report(deployment, deployment.tick("job_completion"))
    assert set(deployment.shown().values()) == {"MATERIALIZED"}


def test_the_run_of_a_dead_process_is_reported_failed(deployment: Deployment) -> None:
    run = started_run(deployment)
    deployment.ledger.note_run(run.run_id, dead_holder(), "texts")
    result = deployment.tick("job_completion")
    assert result.skip_reason is not None
    assert run.run_id in (result.skip_reason.skip_message or "")
    ended = deployment.instance.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.status is dg.DagsterRunStatus.FAILURE
    assert deployment.ledger.dead_runs(10) == []


def test_a_run_whose_process_lives_or_may_live_is_left_alone(deployment: Deployment) -> None:
    here, elsewhere = started_run(deployment), started_run(deployment)
    deployment.ledger.note_run(here.run_id, Holder.current(), "texts")
    deployment.ledger.note_run(elsewhere.run_id, Holder("another-host", "boot", os.getpid(), "1"), "texts")
    deployment.tick("job_completion")
    for run in (here, elsewhere):
        found = deployment.instance.get_run_by_id(run.run_id)
        assert found is not None
        assert found.status is dg.DagsterRunStatus.STARTED


def test_a_run_that_ended_by_itself_is_forgotten(deployment: Deployment) -> None:
    result = deployment.materialize("shard_plan")
    deployment.ledger.note_run(result.run_id, dead_holder(), "texts")
    deployment.tick("job_completion")
    run = deployment.instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.is_success
    assert deployment.ledger.dead_runs(10) == []


def test_a_marker_that_cannot_be_read_keeps_no_other_waiting(deployment: Deployment) -> None:
    embed(deployment)
    first = deployment.keys[0]
    (deployment.root / "shards" / first / "shard.json").write_text("{")
    forget_pictures(deployment)
    keys = deployment.keys
    with dg.DagsterInstance.ephemeral() as deployment.instance:
        result = deployment.tick("job_completion")
    assert [event.partition for event in result.asset_events] == keys[1:]


def test_an_output_root_that_cannot_be_read_keeps_no_other_pipeline_waiting(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_shards(tmp_path / name, 1)
    first, second = (make_settings(tmp_path / name, name) for name in ("first", "second"))
    with deploy(tmp_path, first, second) as deployment:
        deployment.plan()
        embed(deployment)
        deployment.pipelines = [second, first]
        deployment.plan()
        embed(deployment)
        forget_pictures(deployment)
        with deployment.ledger._database.write() as connection:
            away = sa.update(pipelines).where(pipelines.c.name == "first")
            connection.execute(away.values(root="s3://no such bucket!/out"))
        with dg.DagsterInstance.ephemeral() as deployment.instance:
            events = deployment.tick("job_completion").asset_events
    assert [event.asset_key.path for event in events] == [["second", "embedding_outputs"]]
    assert [row.pipeline for row in deployment.ledger.unpictured(10)] == ["first", "second"]
