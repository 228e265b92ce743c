"""A pipeline of requests in Dagster: the daemon computes where no server does, and partitions stay few."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from batch_assets.control.batch_ending import BatchEnding
from batch_assets.control.pipeline import Pipeline, open_pipeline
from batch_assets.control.request_planning import requests_lease
from batch_assets.ledger.holder import Holder
from batch_assets.orchestration import mending
from batch_assets.orchestration.partitions import RANGE_END, RANGE_START
from batch_assets.requests.database import deployment_database
from batch_assets.requests.results import Results
from batch_assets.requests.store import RequestStore
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets_tests.control.test_batches import add_batch
from batch_assets_tests.fakes import FakeHost
from batch_assets_tests.orchestration.deployments import SHARD_ASSETS, Deployment, deploy
from batch_assets_tests.orchestration.test_new_input import PLAN, asked
from batch_assets_tests.requests.builders import NAME, compute, make_settings, send


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PipelineSettings:
    """Of a pipeline whose requests lie in a home of their own."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    return make_settings(tmp_path)


@pytest.fixture
def deployment(tmp_path: Path, settings: PipelineSettings) -> Iterator[Deployment]:
    with deploy(tmp_path, settings) as deployment:
        yield deployment


def test_the_daemon_computes_requests(deployment: Deployment, settings: PipelineSettings) -> None:
    assert not deployment.tick("new_input").run_requests
    database = deployment_database()
    [job_id] = send(database, settings, "hello")
    first = deployment.tick("new_input")
    assert asked(first) == [PLAN]
    [key] = deployment.plan()
    second = deployment.tick("new_input", first.cursor)
    assert asked(second) == [(SHARD_ASSETS, {RANGE_START: key, RANGE_END: key})]
    assert deployment.materialize(*SHARD_ASSETS, shards=(key, key)).success
    request = RequestStore(database).find(job_id)
    assert request is not None
    assert Results(database, deployment.ledger).look_up(request).status == "completed"
    assert not deployment.tick("new_input", second.cursor).run_requests


def look(deployment: Deployment) -> tuple[dict[str, Any], dict[str, bool]]:
    """What the plan's last look at the requests shows: its figures, and which checks pass."""
    events = deployment.tick(f"{NAME}_requests").asset_events
    [observed] = [event for event in events if isinstance(event, dg.AssetObservation)]
    verdicts = {one.check_name: one.passed for one in events if isinstance(one, dg.AssetCheckEvaluation)}
    return {name: value.value for name, value in observed.metadata.items()}, verdicts


def test_dagster_shows_how_many_requests_are_open_and_how_long_others_took(
    deployment: Deployment, settings: PipelineSettings
) -> None:
    database = deployment_database()
    send(database, settings, "one", "two", "three")
    figures, passed = look(deployment)
    assert (figures["open"], figures["accepted"], figures["completed"]) == (3, 3, 0)
    assert "latency_p50_seconds" not in figures
    assert passed == {"account": True, "answers": True, "batches": True}
    [key] = deployment.plan()
    assert deployment.materialize(*SHARD_ASSETS, shards=(key, key)).success
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE requests_accepted SET arrived = arrived - 100 WHERE line = 2")
    figures, passed = look(deployment)
    assert (figures["open"], figures["oldest_seconds"], figures["completed"]) == (0, 0, 3)
    assert figures["latency_p50_seconds"] < 100 <= figures["latency_p99_seconds"] + 5
    assert passed == {"account": True, "answers": True, "batches": True}


def test_a_check_fails_where_a_request_waits_too_long_and_where_one_is_lost(
    tmp_path: Path, settings: PipelineSettings
) -> None:
    settings = make_settings(tmp_path, {"answer_within": "1h"})
    database = deployment_database()
    send(database, settings, "one", "two")
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE requests_accepted SET arrived = arrived - 3700")
        connection.exec_driver_sql("DELETE FROM requests_accepted WHERE number = 1")
    with deploy(tmp_path, settings) as deployment:
        assert look(deployment)[1] == {"account": False, "answers": False, "batches": True}
        result = deployment.materialize("shard_plan")
        assert result.success, "a plan is made all the same"
        told = {one.check_name: one.description for one in result.get_asset_check_evaluations()}
    assert "requests that nobody accounts for: 1 (accepted=2" in str(told["account"])
    assert "the oldest open request, of 1, came" in str(told["answers"]) and "answer_within is 1h" in str(
        told["answers"]
    )


@pytest.mark.parametrize("computed_by", ["a run", "the server"])
def test_a_shard_names_the_batches_that_it_has_requests_of(
    deployment: Deployment, settings: PipelineSettings, computed_by: str
) -> None:
    database = deployment_database()
    first, second = (add_batch(database, settings, texts) for texts in (["a", "b"], ["c"]))
    send(database, settings, "of no batch")
    [key] = deployment.plan()
    if computed_by == "a run":
        assert deployment.materialize(*SHARD_ASSETS, shards=(key, key)).success
        told = deployment.metadata_of("embedding_outputs", key)
    else:
        compute(open_there(deployment, settings), database)
        [event] = mending.missing_materializations(deployment.instance, deployment.ledger)
        told = {name: value.value for name, value in event.metadata.items()}
    assert told["batches"] == {first: 2, second: 1}


def open_there(deployment: Deployment, settings: PipelineSettings) -> Pipeline:
    return open_pipeline(settings, deployment.ledger, FakeHost().executor(settings))


def test_a_check_fails_where_a_batch_has_no_result_at_all(
    deployment: Deployment, settings: PipelineSettings
) -> None:
    database = deployment_database()
    batch_id = add_batch(database, settings, [" "])
    deployment.plan()
    BatchEnding(open_there(deployment, settings), database).end_batches()
    assert look(deployment)[1] == {"account": True, "answers": True, "batches": False}
    result = deployment.materialize("shard_plan")
    told = {one.check_name: one.description for one in result.get_asset_check_evaluations()}
    assert f"every line failed of {batch_id} (1 lines)" in str(told["batches"])


def test_it_leaves_them_to_a_server(deployment: Deployment, settings: PipelineSettings) -> None:
    send(deployment_database(), settings, "hello")
    server = Holder.current()
    assert deployment.ledger.lease(requests_lease(NAME), server) is not None
    assert not deployment.tick("new_input").run_requests
    deployment.ledger.release_lease(requests_lease(NAME), server)
    assert asked(deployment.tick("new_input")) == [PLAN]


def test_old_shards_are_no_partitions_any_more(
    deployment: Deployment, settings: PipelineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mending, "MOST_OF_REQUESTS", 2)
    database = deployment_database()
    for number in range(4):
        send(database, settings, str(number))
        key = deployment.plan()[-1]
        assert deployment.materialize(*SHARD_ASSETS, shards=(key, key)).success
    send(database, settings, "not computed yet")
    assert deployment.plan()[-1] == "g0005-00000"
    deployment.tick("job_completion")
    assert deployment.keys == ["g0004-00000", "g0005-00000"]
    assert deployment.plan() == ["g0004-00000", "g0005-00000"], "planning brings none back"


def test_what_is_not_kept_any_longer_leaves_with_its_partition(
    deployment: Deployment, settings: PipelineSettings
) -> None:
    database = deployment_database()
    ids: list[str] = []
    for number in range(2):
        ids += send(database, settings, str(number))
        key = deployment.plan()[-1]
        assert deployment.materialize(*SHARD_ASSETS, shards=(key, key)).success
    _end_long_ago(deployment)
    deployment.plan()
    assert [row.key for row in deployment.ledger.shards(NAME, superseded=True)] == ["g0002-00000"]
    found = [RequestStore(database).find(job_id) for job_id in ids]
    assert [one is not None for one in found] == [False, True]
    deployment.tick("job_completion")
    assert deployment.keys == ["g0002-00000"]


def _end_long_ago(deployment: Deployment) -> None:
    """Have every shard ended 31 days ago."""
    with deployment.ledger._database.write() as connection:  # pyright: ignore[reportPrivateUsage]
        connection.exec_driver_sql("UPDATE ledger_shards SET updated_at = updated_at - 31 * 86400")
