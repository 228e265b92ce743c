"""What a sensor's tick asks of the ledger is for the next tick where the ledger does not answer; a run waits."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from batch_assets.ledger.database import Database
from batch_assets.orchestration.resources import LedgerResource
from batch_assets.patience import ticking
from batch_assets_tests.orchestration.deployments import Deployment, deploy, make_settings, write_shards


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    write_shards(tmp_path, 1)
    with deploy(tmp_path, make_settings(tmp_path, automation=True)) as deployment:
        deployment.plan()
        yield deployment


@pytest.fixture
def in_ticks(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each transaction that is begun from now on: whether it was in a tick."""
    begun: list[bool] = []
    begin = Database._begin

    def noted(*arguments: Any) -> Any:
        begun.append(ticking())
        return begin(*arguments)

    monkeypatch.setattr(Database, "_begin", noted)
    return begun


@pytest.mark.parametrize("sensor", ["new_input", "job_completion", "merge_ready"])
def test_a_sensor_asks_for_nothing_that_is_not_in_its_tick(
    deployment: Deployment, in_ticks: list[bool], sensor: str
) -> None:
    del in_ticks[:]
    deployment.tick(sensor)
    assert set(in_ticks) == {True}


def test_nor_is_the_ledger_opened_for_it_outside_of_one(tmp_path: Path, in_ticks: list[bool]) -> None:
    resource = LedgerResource(url=f"sqlite:///{tmp_path}/ledger.db")
    with dg.build_resources({"ledger": resource}):
        assert set(in_ticks) == {True}

    @dg.op(required_resource_keys={"ledger"})
    def step() -> None: ...

    @dg.job(resource_defs={"ledger": resource})
    def job() -> None:
        step()

    del in_ticks[:]
    assert job.execute_in_process().success
    assert set(in_ticks) == {False}, "a run waits"
