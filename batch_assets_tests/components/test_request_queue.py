"""Queues of requests in a Dagster project: what is observed of them, what fails the check, and what cannot be one."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import jsonschema
import pytest
import redis
import yaml
from dagster.components.scaffold.scaffold import get_scaffolder
from dagster.components.testing import DefsFolderSandbox, create_defs_folder_sandbox

from batch_assets import definitions
from batch_assets.components import RequestQueue
from batch_assets.components.attributes import COMPONENT_TYPE, QUEUE_TYPE
from batch_assets.components.declared import load_folder
from batch_assets.components.declared_queues import load_queues
from batch_assets.dispatch.queues.base import Ending, Queue, QueueAway
from batch_assets.dispatch.queues.urls import queue_of
from batch_assets.errors import ConfigurationError
from batch_assets.home import requests_url
from batch_assets.requests.database import RequestsDatabase
from batch_assets_tests.dispatch.queues.in_queue import FAR, LONG, ended, in_queue, message
from batch_assets_tests.dispatch.valkey import new_name, running_valkey

REQUESTS, RESULTS = dg.AssetKey(["nightly", "requests"]), dg.AssetKey(["nightly", "results"])
PIPELINE = {"type": COMPONENT_TYPE, "attributes": {"source": {"uri": "in/"}, "output": {"root": "out/texts"}}}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def sandbox() -> Iterator[DefsFolderSandbox]:
    with create_defs_folder_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def queue(**attributes: object) -> dict[str, Any]:
    return {"type": QUEUE_TYPE, "attributes": attributes}


def declare(defs: Path, folder: str, *documents: dict[str, Any]) -> Path:
    file = defs / folder / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump_all(documents))
    return file


def definitions_of(sandbox: DefsFolderSandbox, url: str, **more: object) -> dg.Definitions:
    declare(sandbox.defs_folder_path, "nightly", queue(url=url, **more))
    with sandbox.build_all_defs() as found:
        dg.Definitions.validate_loadable(found)
        return found


def tick(
    found: dg.Definitions, instance: dg.DagsterInstance, cursor: str | None = None
) -> tuple[dict[dg.AssetKey, dict[str, Any]], list[dg.AssetCheckEvaluation], str]:
    """What a look says of each asset, the evaluations of checks, and the cursor."""
    sensor = found.get_repository_def().get_sensor_def("nightly_observation")
    told = sensor(dg.build_sensor_context(instance=instance, cursor=cursor))
    assert isinstance(told, dg.SensorResult) and told.cursor
    observed: dict[dg.AssetKey, dict[str, Any]] = {}
    for event in told.asset_events:
        instance.report_runless_asset_event(event)
        if isinstance(event, dg.AssetObservation):
            observed[event.asset_key] = {key: value.value for key, value in event.metadata.items()}
    return (
        observed,
        [each for each in told.asset_events if isinstance(each, dg.AssetCheckEvaluation)],
        told.cursor,
    )


def local_queue() -> Queue:
    return queue_of("local:nightly", None, lambda: RequestsDatabase(requests_url()))


def test_a_queue_and_its_results_are_observed(
    sandbox: DefsFolderSandbox, instance: dg.DagsterInstance
) -> None:
    found = definitions_of(sandbox, "local:nightly", deps=["raw/questions"])
    graph = found.resolve_asset_graph()
    assert graph.get(REQUESTS).parent_keys == {dg.AssetKey(["raw", "questions"])}
    assert graph.get(RESULTS).parent_keys == {REQUESTS}
    assert not graph.get(REQUESTS).is_materializable, "nothing here makes it"
    sensor = found.get_repository_def().get_sensor_def("nightly_observation")
    assert (sensor.minimum_interval_seconds, sensor.default_status) == (60, dg.DefaultSensorStatus.RUNNING)

    async def steps(queue: Queue) -> None:
        await queue.put([message(str(number), FAR + number) for number in range(6)])
        ends = [Ending.COMPLETED, Ending.COMPLETED, Ending.FAILED, Ending.EXPIRED]
        claimed = await queue.claim(5, LONG)
        await queue.finish([ended(one, b"{}", end) for one, end in zip(claimed, ends, strict=False)])

    _, _, cursor = tick(found, instance)
    in_queue(local_queue, steps)
    observed, [checked], _ = tick(found, instance, json.dumps(json.loads(cursor) | {"at": time.time() - 8}))
    requests, results = observed[REQUESTS], observed[RESULTS]
    assert (requests["backlog"], requests["held"], requests["failures"]) == (1, 1, 2)
    assert requests["oldest_seconds"] >= 0 and requests["overdue_seconds"] == 0
    assert 0 < requests["messages_per_second"] <= 0.5
    assert requests["first_deadline"] == FAR + 5
    assert results == {
        "unread_results": 4,
        "completed": 2,
        "failed": 1,
        "expired": 1,
        "cancelled": 0,
        "invalid": 0,
    }
    assert checked.passed and checked.asset_key == REQUESTS
    assert instance.get_latest_asset_check_evaluation_record(dg.AssetCheckKey(REQUESTS, "deadlines"))


def test_a_queue_that_was_made_anew_is_counted_anew(
    sandbox: DefsFolderSandbox, instance: dg.DagsterInstance
) -> None:
    async def steps(queue: Queue) -> None:
        await queue.put([message("a")])
        await queue.finish([ended(each, None, Ending.FAILED) for each in await queue.claim(1, LONG)])

    found = definitions_of(sandbox, "local:nightly")
    in_queue(local_queue, steps)
    before = {"at": time.time() - 10, "endings": {"failed": 7, "completed": 9}}
    observed, _, _ = tick(found, instance, json.dumps(before))
    assert observed[REQUESTS]["failures"] == 1


def test_the_check_fails_when_a_message_is_past_its_deadline(
    sandbox: DefsFolderSandbox, instance: dg.DagsterInstance
) -> None:
    async def steps(queue: Queue) -> None:
        await queue.put([message("a", time.time() - 90)])

    found = definitions_of(sandbox, "local:nightly")
    job = found.resolve_implicit_global_asset_job_def()
    assert [
        each.passed for each in job.execute_in_process(instance=instance).get_asset_check_evaluations()
    ] == [True]
    in_queue(local_queue, steps)
    by_hand = job.execute_in_process(instance=instance).get_asset_check_evaluations()
    _, by_sensor, _ = tick(found, instance)
    for evaluation in (*by_hand, *by_sensor):
        assert not evaluation.passed
        assert "seconds past its deadline" in (evaluation.description or "")
    assert len(by_hand) == len(by_sensor) == 1


def test_redis_is_observed_and_its_absence_is_told(
    sandbox: DefsFolderSandbox, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_valkey() as server:
        url = server.url(queue=new_name())

        async def steps(queue: Queue) -> None:
            await queue.put([message("a"), message("b")])
            await queue.finish([ended(each, b"{}") for each in await queue.claim(1, LONG)])

        in_queue(lambda: queue_of(url, None, lambda: RequestsDatabase(requests_url())), steps)
        monkeypatch.setenv("QUEUE_URL", url)
        found = definitions_of(sandbox, "{{ env.QUEUE_URL }}")
        observed, [checked], _ = tick(found, instance)
        assert (observed[REQUESTS]["backlog"], observed[RESULTS]["completed"]) == (1, 1)
        assert checked.passed
        server.kill()
        with pytest.raises(QueueAway):
            tick(found, instance)
        latest = instance.get_latest_asset_check_evaluation_record(dg.AssetCheckKey(REQUESTS, "deadlines"))
        assert latest is not None and latest.event is not None
        evaluation = latest.event.asset_check_evaluation
        assert evaluation is not None and not evaluation.passed, "what was true a minute ago does not stand"
        assert f"127.0.0.1:{server.port}" in (evaluation.description or "")
        job = found.resolve_implicit_global_asset_job_def()
        [by_hand] = job.execute_in_process(instance=instance).get_asset_check_evaluations()
        assert not by_hand.passed
        assert f"127.0.0.1:{server.port}" in (by_hand.description or "")


@pytest.mark.parametrize("score", ["-inf", "-1e300", "1e300", "inf"])
def test_a_message_at_the_end_of_all_time_is_told_in_numbers(
    sandbox: DefsFolderSandbox, instance: dg.DagsterInstance, score: str
) -> None:
    with running_valkey() as server, redis.Redis(port=server.port) as client:
        name = new_name()
        client.zadd(name, {"a": float(score)})
        observed, [checked], _ = tick(definitions_of(sandbox, server.url(queue=name)), instance)
        assert observed[REQUESTS]["backlog"] == 1
        assert 0 <= observed[REQUESTS]["overdue_seconds"] <= time.time() + 1
        assert checked.passed == (float(score) > 0)


def test_a_queue_that_knows_no_deadlines_has_no_check_of_them(sandbox: DefsFolderSandbox) -> None:
    found = definitions_of(sandbox, "sqs://us-east-1/nightly")
    assert not found.resolve_asset_graph().asset_check_keys


def test_no_password_is_shown(sandbox: DefsFolderSandbox) -> None:
    found = definitions_of(sandbox, "redis://:geheim@h/0?queue=a", results="redis://:geheim@h/0?queue=b")
    sensor = found.get_repository_def().get_sensor_def("nightly_observation")
    specs = [spec for spec in found.resolve_all_asset_specs() if spec.key in (REQUESTS, RESULTS)]
    assert len(specs) == 2
    assert "geheim" not in f"{sensor.description} {specs}"


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({}, "url: this field is required"),
        ({"url": "kafka://h/t"}, "no such kind of queue; write local:NAME"),
        ({"url": "local:a", "result": "local:b"}, "result: there is no such field; known: .*results"),
        ({"url": "local:a", "results": "sqs://us-east-1/b"}, "must be on the server of the queue"),
        ({"url": "local:a", "name": "Nightly!"}, "'Nightly!' cannot be used: use 1 to 24 of a-z"),
        ({"url": "local:a", "deps": ["raw/x", "bad/results"]}, "bad/results is this queue's own"),
        ({"url": "{{ env.NOT_SET }}"}, "NOT_SET is not set"),
        ({"url": "redis://:geheim@h"}, "redis://…@h: its name is missing"),
    ],
)
def test_what_cannot_be_a_queue_shows_itself_beside_the_others(
    sandbox: DefsFolderSandbox, monkeypatch: pytest.MonkeyPatch, attributes: dict[str, object], told: str
) -> None:
    file = declare(sandbox.defs_folder_path, "bad", queue(**attributes))
    declare(sandbox.defs_folder_path, "good", queue(url="local:good"))
    with sandbox.build_all_defs() as found:
        keys = {key.to_user_string() for key in found.resolve_all_asset_keys()}
        assert keys == {"bad/requests", "bad/results", "good/requests", "good/results"}
        assert [sensor.name for sensor in found.sensors or ()] == ["good_observation"]
        result = found.resolve_implicit_global_asset_job_def().execute_in_process(
            asset_selection=[dg.AssetKey(["bad", "requests"])], raise_on_error=False
        )
        assert not result.success
    monkeypatch.setenv("DAGSTER_IS_DEFS_VALIDATION_CLI", "1")
    with pytest.raises(Exception, match=r".") as raised, sandbox.build_all_defs():
        pass
    error: BaseException | None = raised.value
    while error is not None and not isinstance(error, ConfigurationError):
        error = error.__cause__
    assert error is not None
    assert str(file) in str(error)
    assert re.search(told, str(error))


def test_of_several_with_one_name_none_is_loaded(sandbox: DefsFolderSandbox) -> None:
    declare(
        sandbox.defs_folder_path, "a", queue(url="local:a", name="twin"), queue(url="local:b", name="twin")
    )
    declare(sandbox.defs_folder_path, "twin", queue(url="local:c"))
    declare(sandbox.defs_folder_path, "good", queue(url="local:good"), PIPELINE)
    with sandbox.build_all_defs() as found:
        dg.Definitions.validate_loadable(found)
        names = {key.path[0] for key in found.resolve_all_asset_keys()}
        assert names == {"good", "_a_0_", "_a_1_", "_twin_0_"}
        assert "good_observation" in {sensor.name for sensor in found.sensors or ()}


def test_the_projects_own_code_location_has_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "defs"
    declare(folder, "texts", PIPELINE, queue(url="local:texts"))
    declare(folder, "bad", queue(url="nowhere"))
    declare(folder, "nightly", queue(url="local:nightly"))
    monkeypatch.setenv("BATCH_ASSETS_DEFS", str(folder))
    found = definitions.defs()
    dg.Definitions.validate_loadable(found)
    keys = {key.to_user_string() for key in found.resolve_all_asset_keys()}
    assert {"texts/shard_plan", "texts/requests", "bad/requests", "nightly/results"} <= keys
    assert {"texts_observation", "nightly_observation"} <= {sensor.name for sensor in found.sensors or ()}
    assert load_folder(folder).problems == [], (
        "the command knows pipelines, and a queue is none that is broken"
    )
    assert [each.name for each in load_queues(folder)] == ["bad", "nightly", "texts"]
    monkeypatch.setenv("DAGSTER_IS_DEFS_VALIDATION_CLI", "1")
    with pytest.raises(ConfigurationError, match="nowhere"):
        definitions.defs()


def test_every_field_is_described_and_may_be_a_template() -> None:
    model = RequestQueue.get_model_cls()
    assert model is not None
    schema = model.model_json_schema()
    assert all(field["description"] for field in schema["properties"].values())
    jsonschema.validate({"url": "{{ env.QUEUE_URL }}", "deps": ["raw/questions"]}, schema)


@pytest.mark.parametrize("given", [{}, {"url": 'redis://h/0?queue=it\'s: "odd"'}], ids=["default", "named"])
def test_what_is_scaffolded_is_a_queue(tmp_path: Path, given: dict[str, str]) -> None:
    scaffolder = get_scaffolder(RequestQueue)
    assert isinstance(scaffolder, dg.Scaffolder)
    request = dg.ScaffoldRequest(
        type_name=QUEUE_TYPE,
        target_path=tmp_path / "defs" / "My-Nightly",
        scaffold_format="yaml",
        project_root=tmp_path,
        params=scaffolder.get_scaffold_params()(**given),
    )
    scaffolder.scaffold(request)
    [made] = load_queues(tmp_path / "defs")
    assert made.settings is not None, made.reason
    assert (made.name, made.settings.url) == ("my_nightly", given.get("url", "local:My-Nightly"))


def test_it_needs_no_redis_to_be_installed(sandbox: DefsFolderSandbox) -> None:
    script = (
        "import sys; sys.modules['redis'] = None; from batch_assets.components import RequestQueue; "
        "from batch_assets.dispatch.queues.urls import check_urls; check_urls('redis://h/0?queue=a', None)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
