"""The asset `cleanup`: there where retention is set, its check shows, its materialization removes."""

import datetime
from pathlib import Path

import dagster as dg
import pytest

from batch_assets.errors import ConfigurationError
from batch_assets.orchestration.pipeline import build_pipeline_definitions
from batch_assets_tests.fakes import find_parity
from batch_assets_tests.orchestration.deployments import (
    SHARD_ASSETS,
    Deployment,
    deploy,
    failure_of,
    make_settings,
    write_shards,
)

RETENTION = {"merged": "1h", "requests": "1h", "schedule": "week"}


def check_alone(deployment: Deployment) -> dg.AssetCheckEvaluation:
    """The check `leftovers`, executed by itself as a person does in the UI."""
    key = dg.AssetCheckKey(dg.AssetKey(["texts", "cleanup"]), "leftovers")
    check = next(each for each in deployment.definitions.asset_checks or () if key in each.check_keys)
    result = dg.materialize(
        [check],
        instance=deployment.instance,
        resources={"batch_assets_ledger": deployment.ledger, "batch_assets_gpu": deployment.host},
        selection=dg.AssetSelection.checks(check),
    )
    [evaluation] = result.get_asset_check_evaluations()
    return evaluation


def asked_by_schedule(deployment: Deployment) -> list[str]:
    """The assets that a tick of the schedule asks for."""
    repository = deployment.definitions.get_repository_def()
    at = datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC)
    with dg.build_schedule_context(
        instance=deployment.instance, repository_def=repository, scheduled_execution_time=at
    ) as context:
        data = repository.get_schedule_def("texts_cleanup").evaluate_tick(context)
    requests = data.run_requests or ()
    return [key.to_user_string() for request in requests for key in request.asset_selection or ()]


def test_the_check_shows_and_the_asset_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_parity(monkeypatch)
    write_shards(tmp_path, 1)
    with deploy(tmp_path, make_settings(tmp_path, retention=RETENTION)) as deployment:
        assert "does not know" in failure_of(deployment.materialize("cleanup"))
        for name in ("a", "b"):
            write_shards(tmp_path, 1, name)
            keys = deployment.plan()
            assert deployment.materialize(*SHARD_ASSETS, shards=(keys[0], keys[-1])).success
            assert deployment.materialize("merged_embeddings").success
        assert check_alone(deployment).passed
        now = deployment.ledger.now()
        monkeypatch.setattr(deployment.ledger, "now", lambda: now + 7_200)
        before = sorted(path for path in deployment.root.rglob("*.parquet"))
        found = check_alone(deployment)
        assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
        assert found.description is not None
        assert found.description.startswith("4 files with")
        assert found.metadata["merged_files"].value == found.metadata["files"].value == 4
        assert sorted(path for path in deployment.root.rglob("*.parquet")) == before
        assert deployment.materialize("cleanup").success
        told = deployment.metadata_of("cleanup")
        assert (told["files"], told["merged_files"], told["requests_files"]) == (4, 4, 0)
        assert told["bytes"] == told["merged_bytes"] == found.metadata["bytes"].value
        assert check_alone(deployment).passed
        assert len(list((deployment.root / "merged").iterdir())) == 2
        assert asked_by_schedule(deployment) == ["texts/cleanup"]


def test_it_is_there_only_where_retention_is_set(tmp_path: Path) -> None:
    without = build_pipeline_definitions(make_settings(tmp_path))
    assert not any(key.path[-1] == "cleanup" for asset in without.assets or () for key in asset.keys)  # type: ignore[union-attr]
    settings = make_settings(tmp_path, retention={"merged": "1h"})
    assert not build_pipeline_definitions(settings).schedules
    settings = make_settings(tmp_path, retention=RETENTION, timezone="Europe/Berlin")
    schedule = next(iter(build_pipeline_definitions(settings).schedules or ()))
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert (schedule.name, schedule.cron_schedule) == ("texts_cleanup", "0 0 * * 0")
    assert schedule.execution_timezone == "Europe/Berlin"
    with pytest.raises(ConfigurationError, match=r"retention.schedule: 'now and then' cannot be used"):
        make_settings(tmp_path, retention={"schedule": "now and then"})
    with pytest.raises(ConfigurationError, match=r"retention.schedule: '0 0 31 2 \*' cannot be used"):
        build_pipeline_definitions(make_settings(tmp_path, retention={"schedule": "0 0 31 2 *"}))
    with pytest.raises(ConfigurationError, match=r"retention.merged: 7 cannot be used: write an age such as"):
        make_settings(tmp_path, retention={"merged": 7})
