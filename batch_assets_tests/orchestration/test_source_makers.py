"""A pipeline whose source is made by assets of the project: their materialization is new input."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from batch_assets.orchestration import under_way
from batch_assets.orchestration.sensors import new_input
from batch_assets_tests.fakes import find_parity
from batch_assets_tests.orchestration.deployments import (
    PER_SHARD,
    SHARD_ASSETS,
    Deployment,
    deploy,
    make_settings,
    write_shards,
)

PLAN = (["shard_plan"], {})
ARTICLES = dg.AssetKey(["raw", "articles"])


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """A pipeline with automation whose source an asset makes; all that there is has been embedded."""
    write_shards(tmp_path, 1, "a")
    write_shards(tmp_path, 1, "b")
    settings = make_settings(tmp_path, automation=True, deps=["raw/articles", "never/made"])
    with deploy(tmp_path, settings) as deployment:
        make(deployment)
        embed(deployment)
        yield deployment


def make(deployment: Deployment) -> None:
    deployment.instance.report_runless_asset_event(dg.AssetMaterialization(ARTICLES))


def embed(deployment: Deployment) -> None:
    deployment.plan()
    keys = deployment.keys
    assert deployment.materialize(*SHARD_ASSETS, shards=(keys[0], keys[-1])).success


def asked(result: dg.SensorResult) -> list[tuple[list[str], dict[str, str]]]:
    return [
        ([key.path[-1] for key in request.asset_selection or ()], dict(request.tags))
        for request in result.run_requests or ()
    ]


def test_each_materialization_is_planned_once_changed_files_included(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_parity(monkeypatch)
    first = deployment.tick("new_input")
    assert asked(first) == []
    write_shards(tmp_path, 2, "b")
    touched = deployment.tick("new_input", first.cursor)
    assert asked(touched) == []
    make(deployment)
    make(deployment)
    second = deployment.tick("new_input", touched.cursor)
    assert asked(second) == [PLAN]
    embed(deployment)
    assert asked(deployment.tick("new_input", second.cursor)) == []
    assert [file.state for file in deployment.ledger.files("texts")] == ["planned", "planned"]
    deployment.materialize("merged_embeddings")
    assert deployment.metadata_of("merged_embeddings")["rows"] == 3 * PER_SHARD


def test_a_plan_that_fails_is_asked_for_again_later(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(deployment)
    first = deployment.tick("new_input")
    assert asked(first) == [PLAN]
    waiting = deployment.tick("new_input", first.cursor)
    assert asked(waiting) == []
    monkeypatch.setattr(new_input, "NEW_INPUT_ASKED_AGAIN_SECONDS", 0.0)
    assert asked(deployment.tick("new_input", waiting.cursor)) == [PLAN]


def test_a_plan_that_a_person_or_an_order_asks_for_takes_changed_files_too(
    deployment: Deployment, tmp_path: Path
) -> None:
    write_shards(tmp_path, 2, "b")
    make(deployment)
    assert deployment.materialize("shard_plan", tags={"batch_assets/start": "today"}).success
    assert {file.state for file in deployment.ledger.files("texts")} == {"planned"}
    write_shards(tmp_path, 3, "b")
    deployment.plan()
    assert {file.path for file in deployment.ledger.files("texts") if file.state == "touched"} == {"b.jsonl"}


@dg.asset(key=ARTICLES)
def articles() -> None: ...


@pytest.fixture(params=["selected", "a whole job"])
def writing(deployment: Deployment, request: pytest.FixtureRequest) -> dg.DagsterRun:
    """A run of the maker that is under way, behind which a backfill of others waits."""
    if request.param == "selected":
        job, selection = dg.Definitions(assets=[articles]).resolve_implicit_global_asset_job_def(), {ARTICLES}
    else:
        write = dg.define_asset_job("write", selection=[ARTICLES])
        job, selection = dg.Definitions(assets=[articles], jobs=[write]).resolve_job_def("write"), None
    instance = deployment.instance
    run = instance.create_run_for_job(
        job_def=job,
        asset_selection=frozenset(selection) if selection else None,
        status=dg.DagsterRunStatus.STARTED,
    )

    @dg.op
    def waits() -> None: ...

    @dg.job
    def backfill() -> None:
        waits()

    for _ in range(under_way.WAITING_LOOKED_AT):
        instance.create_run_for_job(job_def=backfill, status=dg.DagsterRunStatus.NOT_STARTED)
    return run


def test_files_are_left_alone_while_they_are_being_written(
    deployment: Deployment, writing: dg.DagsterRun, tmp_path: Path
) -> None:
    write_shards(tmp_path, 1, "c")
    assert asked(deployment.tick("new_input")) == []
    deployment.ledger.open_trigger("texts", "an order", "a person")
    assert asked(deployment.tick("new_input")) == []
    deployment.plan()
    assert asked(deployment.tick("new_input")) == []
    deployment.instance.report_run_failed(writing)
    assert [names for names, _ in asked(deployment.tick("new_input"))] == [["shard_plan"], SHARD_ASSETS]
