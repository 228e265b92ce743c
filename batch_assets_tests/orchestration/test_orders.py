"""A pipeline without automation starts once: by its schedule's tick, then by the sensors; and people are told."""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest

from batch_assets.ledger.holder import Holder
from batch_assets.ledger.triggers import start_lease
from batch_assets.notifications.base import Notification
from batch_assets.orchestration.metadata import START_TAG
from batch_assets.orchestration.schedules import build_schedules
from batch_assets_tests.command import write_records
from batch_assets_tests.fakes import find_parity
from batch_assets_tests.orchestration.deployments import (
    SHARD_ASSETS,
    Deployment,
    deploy,
    failure_of,
    make_settings,
    write_shards,
)

SIX = datetime.datetime(2026, 11, 21, 5, 0, tzinfo=datetime.UTC)  # six o'clock in Berlin
KEY = "schedule 2026-11-21T05:00:00+00:00"


@dataclass
class Inbox:
    """A target that keeps what it gets."""

    target: str = "inbox"
    got: list[Notification] = field(default_factory=list)

    def send(self, notification: Notification) -> None:
        self.got.append(notification)
        raise RuntimeError("a target that breaks does no harm")


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    find_parity(monkeypatch)
    write_shards(tmp_path, 2)
    settings = make_settings(tmp_path, schedule="0 6 * * 1-6", timezone="Europe/Berlin")
    with deploy(tmp_path, settings) as deployment:
        deployment.notifiers.append(Inbox())
        yield deployment


def told(deployment: Deployment) -> list[Notification]:
    [inbox] = deployment.notifiers
    assert isinstance(inbox, Inbox)
    return inbox.got


def tick(deployment: Deployment) -> dg.RunRequest:
    """What the schedule asks for at six."""
    context = dg.build_schedule_context(scheduled_execution_time=SIX)
    [schedule] = build_schedules(deployment.pipelines[0])
    [request] = schedule.evaluate_tick(context).run_requests or ()
    return request


def asked(deployment: Deployment, sensor: str = "new_input") -> list[list[str]]:
    requests = deployment.tick(sensor).run_requests or ()
    return [[key.path[-1] for key in request.asset_selection or ()] for request in requests]


def order(deployment: Deployment, key: str = KEY) -> tuple[str, str | None]:
    row = deployment.ledger.trigger("texts", key)
    assert row is not None
    return row.state.value, row.message


def embed(deployment: Deployment) -> None:
    keys = deployment.keys
    assert deployment.materialize(*SHARD_ASSETS, shards=(keys[0], keys[-1])).success


def test_a_schedule_starts_its_pipeline_once(deployment: Deployment) -> None:
    assert asked(deployment) == []
    request = tick(deployment)
    assert not deployment.ledger.has_open_trigger("texts"), "a tick changes nothing"
    assert (request.run_key, request.tags[START_TAG]) == ("2026-11-21T05:00:00+00:00", KEY)
    assert request.asset_selection == [dg.AssetKey(["texts", "shard_plan"])]
    assert deployment.materialize("shard_plan", tags=request.tags).success
    assert order(deployment) == ("running", None)
    assert asked(deployment) == [SHARD_ASSETS]
    assert asked(deployment, "merge_ready") == []
    embed(deployment)
    assert asked(deployment) == []
    assert asked(deployment, "merge_ready") == [["merged_embeddings"]]
    assert deployment.materialize("merged_embeddings").success
    assert order(deployment) == ("done", None)
    [success] = told(deployment)
    assert (success.severity, success.command) == ("info", "batch-assets verify texts")
    assert "8 of 8 records are embedded" in success.happened
    # Shards that somebody plans now are not for the sensors, until the next tick; the same tick again is none.
    assert deployment.materialize("shard_plan", tags=request.tags).success
    assert order(deployment) == ("done", None)
    assert asked(deployment) == asked(deployment, "merge_ready") == []


def test_nothing_new_ends_it_at_once_and_no_source_fails_it(deployment: Deployment, tmp_path: Path) -> None:
    deployment.plan()
    embed(deployment)
    assert deployment.materialize("merged_embeddings").success
    assert deployment.materialize("shard_plan", tags={START_TAG: "a"}).success
    assert order(deployment, "a") == ("done", None)
    (tmp_path / "in" / "a.jsonl").unlink()
    (tmp_path / "in").rmdir()
    result = deployment.materialize("shard_plan", tags={START_TAG: "b"})
    assert order(deployment, "b") == ("failed", failure_of(result))


def test_an_order_by_web_hook_that_no_server_carries_out_is_begun_by_the_sensor(
    deployment: Deployment,
) -> None:
    ledger, server = deployment.ledger, Holder("another-host", "boot", 4711, "1")
    ledger.open_trigger("texts", "by hand/1", "webhook")
    ledger.open_trigger("texts", "by hand/2", "webhook")
    assert ledger.lease(start_lease("texts"), server)
    assert asked(deployment) == []
    ledger.release_lease(start_lease("texts"), server)
    [request] = deployment.tick("new_input").run_requests or ()
    assert request.tags == {START_TAG: "by hand/1"}
    assert deployment.materialize("shard_plan", tags=request.tags).success
    assert order(deployment, "by hand/1") == order(deployment, "by hand/2") == ("running", None)


def test_blocked_publishing_is_told_once_and_ends_the_order(deployment: Deployment, tmp_path: Path) -> None:
    write_records(tmp_path / "in" / "a.jsonl", [{"id": "1", "text": " "}, {"id": "2", "text": ""}])
    assert deployment.materialize("shard_plan", tags={START_TAG: KEY}).success
    embed(deployment)
    for _ in range(2):
        blocked = failure_of(deployment.materialize("merged_embeddings"))
        assert "none of 2 records was embedded" in blocked
    [alert] = told(deployment)
    assert alert.title == "texts: publishing is blocked"
    assert alert.happened in blocked
    assert order(deployment) == ("failed", blocked)
    assert asked(deployment, "merge_ready") == []
