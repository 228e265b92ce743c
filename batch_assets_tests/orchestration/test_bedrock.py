"""Jobs at a service as the daemon and the UI see them: one run for many ended shards, and words for what waits."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from batch_assets import patience
from batch_assets.errors import LastingStorageError
from batch_assets.executors.bedrock.account import BedrockAccount
from batch_assets.executors.bedrock.executor import BedrockExecutor
from batch_assets.executors.service_jobs import Unanswered
from batch_assets.ledger.states import State
from batch_assets.notifications.base import Notification
from batch_assets.orchestration import deferred_driver
from batch_assets.orchestration.driver import Driver
from batch_assets.orchestration.metadata import COLLECT_TAG, PIPELINE_TAG
from batch_assets.orchestration.partitions import RANGE_END, RANGE_START
from batch_assets.patience import Patience
from batch_assets.storage import open_storage
from batch_assets_tests.object_store import Fault, WayToStore, first
from batch_assets_tests.orchestration.deployments import (
    Deployment,
    deploy,
    failure_of,
    make_settings,
    write_shards,
)
from batch_assets_tests.rehearsed import DIMENSIONS, ROLE, TITAN, Rehearsal
from batch_assets_tests.waiting import wait_until

Rehearse = Callable[..., Rehearsal]
SHARDS = 3
SUBMITTED = ("input_shards", "submitted_jobs")


class Inbox:
    """A target of notifications."""

    def __init__(self) -> None:
        self.got: list[Notification] = []

    def send(self, notification: Notification) -> None:
        self.got.append(notification)


@pytest.fixture
def deployed(tmp_path: Path, rehearse: Rehearse) -> Iterator[Callable[..., tuple[Deployment, Rehearsal]]]:
    """A deployment of one pipeline with so many shards at a service with these faults."""
    with contextlib.ExitStack() as stack:

        def make(executor: dict[str, Any] | None = None, **faults: Any) -> tuple[Deployment, Rehearsal]:
            rehearsal = rehearse(**{"quotas": {"min_records": 1}, **faults})
            settings = make_settings(
                tmp_path,
                model={"dimensions": DIMENSIONS},
                executor={
                    "type": "bedrock",
                    "role_arn": ROLE,
                    "model_id": TITAN,
                    "staging": f"s3://{rehearsal.bucket}/staging/",
                    "poll_seconds": 0.01,
                    **(executor or {}),
                },
            )
            write_shards(tmp_path, SHARDS)
            deployment = stack.enter_context(deploy(tmp_path, settings))
            deployment.plan()
            return deployment, rehearsal

        yield make


def submit(deployment: Deployment) -> dg.ExecuteInProcessResult:
    keys = deployment.keys
    return deployment.materialize(*SUBMITTED, shards=(keys[0], keys[-1]))


def tick_until(deployment: Deployment, wanted: Callable[[dg.SensorResult], object]) -> dg.SensorResult:
    """The first tick that brings what is wanted."""
    results: list[dg.SensorResult] = []

    def ticked() -> object:
        results.append(deployment.tick("job_completion"))
        return wanted(results[-1])

    wait_until(ticked, lambda: (results[-1], deployment.states()))
    return results[-1]


def all_ended(deployment: Deployment) -> bool:
    return set(deployment.states().values()) == {State.SUCCEEDED}


def test_one_run_collects_all_that_has_ended(deployed: Callable[..., Any]) -> None:
    deployment, rehearsal = deployed()
    assert submit(deployment).success
    result = tick_until(deployment, lambda _: all_ended(deployment))
    result = deployment.tick("job_completion")
    [request] = result.run_requests or []
    keys = deployment.keys
    assert (request.tags[RANGE_START], request.tags[RANGE_END]) == (keys[0], keys[-1])
    assert request.tags[COLLECT_TAG] == "finished"
    assert [key.path for key in request.asset_selection or []] == [["texts", "embedding_outputs"]]
    # The same state gives the same key: the daemon launches no second run.
    [again] = deployment.tick("job_completion").run_requests or []
    assert again.run_key == request.run_key
    # As if the daemon had launched it: nothing is asked for while it goes on.
    job = deployment.definitions.resolve_implicit_global_asset_job_def()
    run = deployment.instance.create_run_for_job(
        job_def=job,
        asset_selection=frozenset(request.asset_selection or ()),
        tags={**request.tags, PIPELINE_TAG: "texts"},
        status=dg.DagsterRunStatus.STARTED,
    )
    assert not deployment.tick("job_completion").run_requests
    deployment.instance.report_run_canceled(run)
    collected = deployment.materialize(
        "embedding_outputs", shards=(keys[0], keys[-1]), tags={COLLECT_TAG: "finished"}
    )
    assert collected.success
    assert set(deployment.shown().values()) == {"MATERIALIZED"}
    assert deployment.metadata_of("embedding_outputs", keys[0])["cost_usd"] > 0
    assert not deployment.tick("job_completion").run_requests
    assert rehearsal.paid_twice() == 0


def test_a_run_leaves_what_has_not_ended(deployed: Callable[..., Any]) -> None:
    deployment, rehearsal = deployed(timing={"running": (50_000, 50_000)})
    assert submit(deployment).success
    keys = deployment.keys
    early = deployment.materialize(
        "embedding_outputs", shards=(keys[0], keys[-1]), tags={COLLECT_TAG: "finished"}
    )
    assert early.success
    assert deployment.shown() == {}
    asked = deployment.materialize("embedding_outputs", shards=(keys[0], keys[-1]))
    assert not asked.success, "a person who asks for a shard is told that it has not ended"
    rehearsal.let_pass(50_100)
    tick_until(deployment, lambda _: all_ended(deployment))


def test_a_shard_that_goes_on_is_observed(deployed: Callable[..., Any]) -> None:
    deployment, rehearsal = deployed(jobs={"all_records_fail": 1})
    assert submit(deployment).success
    tick_until(deployment, lambda _: all_ended(deployment))
    rehearsal.change(jobs={"all_records_fail": 0})
    keys = deployment.keys
    result = deployment.materialize(
        "embedding_outputs", shards=(keys[0], keys[-1]), tags={COLLECT_TAG: "finished"}
    )
    assert result.success
    observed = [event for event in result.all_events if event.event_type_value == "ASSET_OBSERVATION"]
    assert [event.partition for event in observed] == keys
    assert "4 are tried again (4 service_429)" in (
        observed[0].asset_observation_data.asset_observation.description or ""
    )
    assert deployment.shown() == {}
    tick_until(deployment, lambda _: all_ended(deployment))
    assert deployment.materialize("embedding_outputs", shards=(keys[0], keys[-1])).success
    assert set(deployment.shown().values()) == {"MATERIALIZED"}


def test_the_budget_is_told_in_the_ui_and_once_by_a_notification(deployed: Callable[..., Any]) -> None:
    deployment, rehearsal = deployed(executor={"budget_usd": 1e-9})
    deployment.notifiers.append(inbox := Inbox())
    assert submit(deployment).success
    assert rehearsal.jobs == []
    ticks = [deployment.tick("job_completion") for _ in range(3)]
    events = [event for tick in ticks for event in tick.asset_events]
    assert len(events) == 1
    assert events[0].asset_key.path == ["texts", "submitted_jobs"]
    assert "budget" in (events[0].description or "")
    assert len(inbox.got) == 1
    said = [tick.skip_reason.skip_message or "" for tick in ticks if tick.skip_reason]
    assert said and all("budget reached" in sentence for sentence in said)


def test_a_failed_job_is_told_once(deployed: Callable[..., Any]) -> None:
    deployment, rehearsal = deployed(
        jobs={"fail_running": 1}, quotas={"min_records": 1, "concurrent_jobs": 9}
    )
    deployment.notifiers.append(inbox := Inbox())
    assert submit(deployment).success
    tick_until(deployment, lambda _: set(deployment.states().values()) == {State.FAILED})
    for _ in range(3):
        deployment.tick("job_completion")
    assert len(inbox.got) == len(rehearsal.jobs) == SHARDS
    assert all("unexpected error" in str(one) for one in inbox.got)


def test_a_refusal_fails_the_run_in_words(deployed: Callable[..., Any]) -> None:
    deployment, rehearsal = deployed(calls={"entitled": False})
    deployment.notifiers.append(inbox := Inbox())
    result = submit(deployment)
    assert not result.success
    assert "support case" in failure_of(result)
    tick = deployment.tick("job_completion")
    assert "not authorized" in (tick.asset_events[0].description or "")
    assert len(inbox.got) == 1
    assert rehearsal.calls("CreateModelInvocationJob") == 1


def test_a_service_that_is_silent_fails_no_tick(deployed: Callable[..., Any]) -> None:
    deployment, rehearsal = deployed()
    rehearsal.change(calls={"server_errors": 1})
    assert submit(deployment).success
    tick = deployment.tick("job_completion")
    assert "does not answer" in str(tick.skip_reason)
    rehearsal.change(calls={"server_errors": 0})
    tick_until(deployment, lambda _: all_ended(deployment))


def test_the_command_waits_for_a_store_while_it_uploads_and_while_it_collects(
    tmp_path: Path, deployed: Callable[..., tuple[Deployment, Rehearsal]], monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment, rehearsal = deployed()
    uploading, collecting = (first(12, Fault.REFUSED, "HEAD"), first(12, Fault.REFUSED, "GET", ".out"))
    with WayToStore(rehearsal.server.endpoint, lambda *asked: None) as way:
        monkeypatch.setenv("AWS_ENDPOINT_URL", way.url)
        assert open_storage(f"s3://{rehearsal.bucket}/staging").info("nothing") is None  # it answers
        way.fault = lambda *asked: uploading(*asked) or collecting(*asked)
        [settings] = deployment.pipelines
        Driver(settings, deployment.instance, deployment.ledger, BedrockAccount()).embed()
    assert len(way.met) == 24
    assert {(row.state, row.attempt) for row in deployment.ledger.shards("texts")} == {(State.COLLECTED, 1)}


def test_the_command_ends_where_jobs_have_ended_and_none_can_be_collected(
    deployed: Callable[..., tuple[Deployment, Rehearsal]], monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment, _ = deployed()
    waited = SimpleNamespace(seconds=0.0)

    def pause(_: float) -> None:
        waited.seconds += 100.0

    def look_up(self: BedrockExecutor, job_id: str) -> None:
        raise Unanswered("503, and no word")

    [settings] = deployment.pipelines
    said = list[str]()
    driver = Driver(settings, deployment.instance, deployment.ledger, deployment.bedrock, say=said.append)
    with monkeypatch.context() as patch:
        patch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: waited.seconds, sleep=pause))
        patch.setattr(deferred_driver, "Patience", lambda say, **_: Patience(say, pause=pause))
        patch.setattr(BedrockExecutor, "look_up", look_up)
        with pytest.raises(
            LastingStorageError, match=r"results are asked for .*\(503.*; waited 300 s for it"
        ):
            driver.embed()
    assert any("trying again for" in sentence for sentence in said)
    driver.embed()
    assert set(deployment.shown().values()) == {"MATERIALIZED"}
