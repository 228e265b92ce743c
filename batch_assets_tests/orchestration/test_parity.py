"""The check `parity` on a published version, and on one that it keeps from being published."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from batch_assets.errors import StorageError
from batch_assets.merge.parity import ParityOutcome
from batch_assets.orchestration.sensors import merge_ready
from batch_assets_tests.command import published
from batch_assets_tests.fakes import ALIKE, UNLIKE, find_parity
from batch_assets_tests.orchestration.deployments import (
    SHARD_ASSETS,
    Deployment,
    deploy,
    failure_of,
    make_settings,
    write_shards,
)

NOT_TO_BE_HAD = ParityOutcome(False, "could not be checked: ModelError: torch is not installed")
Deployed = Iterator[Deployment]


def deployed(folder: Path, **fields: Any) -> Deployed:
    """Two shards, embedded and not merged yet."""
    write_shards(folder, 2)
    with deploy(folder, make_settings(folder, **fields)) as deployment:
        keys = deployment.plan()
        assert deployment.materialize(*SHARD_ASSETS, shards=(keys[0], keys[-1])).success
        yield deployment


@pytest.fixture
def deployment(tmp_path: Path) -> Deployed:
    yield from deployed(tmp_path)


@pytest.fixture
def warned(tmp_path: Path) -> Deployed:
    yield from deployed(tmp_path, parity="warn")


def merge(deployment: Deployment) -> tuple[dg.ExecuteInProcessResult, dict[str, Any]]:
    """A run of the merge, and what each check found."""
    result = deployment.materialize("merged_embeddings")
    return result, {found.check_name: found for found in result.get_asset_check_evaluations()}


def is_published(deployment: Deployment) -> bool:
    return (deployment.root / "merged" / "CURRENT").exists()


@pytest.mark.parametrize("outcome", [UNLIKE, NOT_TO_BE_HAD])
def test_by_default_it_keeps_a_version_from_being_published(
    outcome: ParityOutcome, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_parity(monkeypatch, outcome)
    result, checks = merge(deployment)
    assert not result.success
    assert not is_published(deployment)
    assert not result.asset_materializations_for_node("texts__merged_embeddings")
    assert {name: check.passed for name, check in checks.items()} == {
        "accounting": True, "vectors": True, "parity": False,
    }  # fmt: skip
    assert checks["parity"].severity is dg.AssetCheckSeverity.ERROR
    assert checks["parity"].description == outcome.message
    failure = failure_of(result)
    assert "is not published: parity" in failure
    assert outcome.message in failure
    assert "`parity: warn`" in failure


def test_under_warn_it_is_told_and_published(warned: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    find_parity(monkeypatch, UNLIKE)
    result, checks = merge(warned)
    assert result.success
    assert not checks["parity"].passed
    assert checks["parity"].severity is dg.AssetCheckSeverity.WARN
    assert checks["parity"].metadata["lowest_cosine"].value == 0.98
    assert len(published(warned.root)) == 8


def test_under_off_nothing_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = find_parity(monkeypatch, UNLIKE)
    for deployment in deployed(tmp_path, parity="off"):
        result, checks = merge(deployment)
        assert result.success
        assert checks.keys() == {"accounting", "vectors"}
        assert is_published(deployment)
    assert compared == []


def test_a_version_that_passed_is_not_compared_again(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = find_parity(monkeypatch)
    monkeypatch.setattr("batch_assets.orchestration.assets.merged_embeddings.publish_merge", die)
    assert not merge(deployment)[0].success  # between the comparison and the swap
    assert not is_published(deployment)
    monkeypatch.undo()
    find_parity(monkeypatch, UNLIKE)
    for _ in range(2):
        result, checks = merge(deployment)
        assert result.success
        assert checks["parity"].passed
        assert checks["parity"].description == ALIKE.message
    assert len(compared) == 1


def die(*_: object) -> None:
    raise KeyError("as if the process had been killed")


def test_a_version_that_did_not_pass_is_compared_again(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_parity(monkeypatch, NOT_TO_BE_HAD)
    assert not merge(deployment)[0].success
    find_parity(monkeypatch, ALIKE)  # the library was installed
    assert merge(deployment)[0].success
    assert is_published(deployment)


def test_what_is_published_stays_so_where_it_cannot_be_compared_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for deployment in deployed(tmp_path, parity="off"):
        assert merge(deployment)[0].success  # as by a release that compared nothing
    with deploy(tmp_path) as deployment:
        find_parity(monkeypatch, NOT_TO_BE_HAD)
        result, checks = merge(deployment)
        assert result.success, failure_of(result)
        assert not checks["parity"].passed
        find_parity(monkeypatch, UNLIKE)
        result, _ = merge(deployment)
        assert not result.success
        assert "stays published, as it was before: parity FAILED" in failure_of(result)
        assert is_published(deployment)


def test_a_store_that_does_not_answer_is_asked_again_another_time(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*_: object) -> ParityOutcome:
        raise StorageError("s3://texts: no answer")

    monkeypatch.setattr("batch_assets.control.parity.measure_parity", measure)
    result, _ = merge(deployment)
    assert "s3://texts: no answer; run again" in failure_of(result)
    find_parity(monkeypatch)
    assert merge(deployment)[0].success


def test_each_check_can_be_executed_by_itself(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = find_parity(monkeypatch)
    asset = dg.AssetKey(["texts", "merged_embeddings"])

    def execute(name: str) -> dg.ExecuteInProcessResult:
        job = dg.define_asset_job("again", selection=dg.AssetSelection.checks(dg.AssetCheckKey(asset, name)))
        definitions = dg.Definitions.merge(deployment.definitions, dg.Definitions(jobs=[job]))
        return definitions.resolve_job_def("again").execute_in_process(
            instance=deployment.instance, raise_on_error=False
        )

    assert "has published nothing yet" in failure_of(execute("parity"))
    assert merge(deployment)[0].success
    for name in ("accounting", "vectors", "parity"):
        again = execute(name)
        assert [(found.check_name, found.passed) for found in again.get_asset_check_evaluations()] == [
            (name, True)
        ]
        assert not again.asset_materializations_for_node("texts__merged_embeddings")
    assert len(compared) == 2  # whoever asks for it alone wants it made


def test_the_sensor_does_not_ask_for_ever_and_asks_again_once_the_setting_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hour = [1_000]
    monkeypatch.setattr(merge_ready.time, "time", lambda: hour[0] * 3_600.0)

    def asked(deployment: Deployment) -> list[str | None]:
        hour[0] += 1
        return [request.run_key for request in deployment.tick("merge_ready").run_requests or ()]

    find_parity(monkeypatch, UNLIKE)
    for deployment in deployed(tmp_path, automation=True):
        assert not merge(deployment)[0].success
        [key] = asked(deployment)
        assert asked(deployment) == [key]
    with deploy(tmp_path, make_settings(tmp_path, automation=True, parity="warn")) as deployment:
        [other] = asked(deployment)
        assert other != key
        assert merge(deployment)[0].success
        assert asked(deployment) == []
