"""`failure_notification`: one notification for what is one event, driven tick by tick as the daemon does it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from batch_assets.errors import ConfigurationError
from batch_assets.ledger.ledger import Ledger
from batch_assets.notifications.base import Notification
from batch_assets.notifications.events import publishing_blocked
from batch_assets.notifications.log import LogNotifier
from batch_assets.notifications.webhook import WebhookNotifier
from batch_assets.orchestration.broken import build_broken_definitions
from batch_assets.orchestration.pipeline import build_pipeline_definitions
from batch_assets.orchestration.resources import NotificationsResource
from batch_assets.orchestration.sensors.failure_notification import build_failure_notification
from batch_assets_tests.fakes import FakeHost
from batch_assets_tests.orchestration.deployments import make_settings

BACKFILL = {"dagster/backfill": "fyrwxqkb"}
SENSOR = {"dagster/sensor_name": "new_input"}


class Inbox:
    """A target that keeps what it gets."""

    target = "inbox"

    def __init__(self) -> None:
        self.got: list[Notification] = []

    def send(self, notification: Notification) -> None:
        self.got.append(notification)


@dg.op
def unrelated_op() -> None: ...


@dg.job
def unrelated_job() -> None:
    unrelated_op()


@dg.asset(key=["texts", "report"])
def report() -> None:
    """Somebody else's, beside a pipeline's."""


@dataclass
class Watch:
    """Two pipelines and a job of somebody else's, an instance in memory, and the sensor over them."""

    folder: Path
    instance: dg.DagsterInstance
    ledger: Ledger
    inbox: Inbox = field(default_factory=Inbox)
    cursor: str | None = None
    ticks: int = 0

    def __post_init__(self) -> None:
        pipelines = [make_settings(self.folder / name, name) for name in ("images", "texts")]
        shared = dg.Definitions(
            assets=[report],
            jobs=[unrelated_job],
            resources={
                "batch_assets_ledger": self.ledger,
                "batch_assets_gpu": FakeHost(),
                "batch_assets_notifications": [self.inbox],
            },
            sensors=[build_failure_notification()],
            executor=dg.in_process_executor,
        )
        broken = build_broken_definitions("broken", ["It cannot be loaded."])
        self.definitions = dg.Definitions.merge(shared, broken, *map(build_pipeline_definitions, pipelines))
        self.job = self.definitions.resolve_implicit_global_asset_job_def()
        self.tick()  # the first one only notes where it begins

    def fail(
        self,
        *assets: str,
        reason: str = "It broke. Badly.",
        tags: Mapping[str, str] | None = None,
        root: str | None = None,
    ) -> str:
        """A run of these assets (`pipeline/asset`), reported failed; its id."""
        run = self.instance.create_run_for_job(
            self.job,
            asset_selection=frozenset(map(dg.AssetKey.from_user_string, assets or ["texts/shard_plan"])),
            tags=dict(tags or {}),
            root_run_id=root,
            parent_run_id=root,
        )
        self.instance.report_run_failed(run, reason)
        return run.run_id

    def tick(self) -> None:
        """One evaluation with the cursor of the last."""
        self.ticks += 1
        sensor = self.definitions.resolve_sensor_def("failure_notification")
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            resources={"batch_assets_ledger": self.ledger, "batch_assets_notifications": [self.inbox]},
            definitions=self.definitions,
            sensor_name="failure_notification",
        ) as context:
            found = sensor.evaluate_tick(context)
        errors = [reaction.error for reaction in found.dagster_run_reactions or () if reaction.error]
        assert errors == []
        self.cursor = found.cursor

    def watch(self) -> Sequence[Notification]:
        """Ticks until nothing is new; what was notified of in them."""
        before, start = None, len(self.inbox.got)
        while self.cursor != before:
            before = self.cursor
            self.tick()
        return self.inbox.got[start:]


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    with dg.DagsterInstance.ephemeral() as instance:
        yield Watch(tmp_path, instance, ledger)
    ledger.dispose()


def test_a_failed_run_is_told_of_once_with_what_to_do(watch: Watch) -> None:
    run_id = watch.fail("texts/input_shards", "texts/submitted_jobs")
    [found] = watch.watch()
    assert found.title == "texts: a run failed"
    assert found.happened == f"/runs/{run_id}: It broke."
    assert found.command == "batch-assets run texts"
    assert (found.pipeline, found.severity) == ("texts", "error")
    for _ in range(3):
        assert watch.watch() == []


def test_runs_of_a_pipeline_that_can_no_longer_be_loaded_are_told_of(watch: Watch) -> None:
    watch.fail("broken/embedding_outputs", tags=BACKFILL)
    [found] = watch.watch()
    assert found.title == "broken: runs of backfill fyrwxqkb fail"


def test_a_hundred_failed_runs_of_a_backfill_are_told_of_once(watch: Watch) -> None:
    for number in range(100):
        watch.fail("texts/embedding_outputs", reason=f"{number} shards failed", tags=BACKFILL)
    [found] = watch.watch()
    assert found.title == "texts: runs of backfill fyrwxqkb fail"
    assert watch.ticks >= 20  # five runs a tick
    # The next backfill is another event.
    watch.fail("texts/embedding_outputs", tags={"dagster/backfill": "other"})
    assert len(watch.watch()) == 1


def test_ticks_that_overlap_tell_nothing_twice(watch: Watch) -> None:
    before = watch.cursor
    watch.fail()
    watch.fail(tags=BACKFILL)
    watch.fail(tags=SENSOR)
    assert len(watch.watch()) == 3
    watch.cursor = before
    assert watch.watch() == []


def test_re_executions_are_told_of_with_the_first(watch: Watch) -> None:
    first = watch.fail()
    watch.fail(root=first, reason="It broke in another way.")
    assert len(watch.watch()) == 1
    watch.fail(root=first)
    assert watch.watch() == []
    # A person executes a backfill's run again: it no longer carries the backfill's tag.
    of_backfill = watch.fail(tags=BACKFILL)
    watch.fail(root=of_backfill)
    assert len(watch.watch()) == 1


def test_runs_by_hand_are_told_of_each(watch: Watch) -> None:
    for _ in range(3):
        watch.fail(reason="the same error")
    assert len(watch.watch()) == 3


def test_runs_of_sensors_are_told_of_once_an_hour_for_each_error_and_pipeline(watch: Watch) -> None:
    for number in range(20):
        watch.fail(reason=f"shard g0001-{number:05d}: No space left on device", tags=SENSOR)
    [found] = watch.watch()
    assert found.title == "texts: a run that new_input started failed"
    watch.fail(reason="the weights cannot be loaded", tags=SENSOR)
    watch.fail("images/input_shards", reason="shard g0001-00001: No space left on device", tags=SENSOR)
    assert [found.pipeline for found in watch.watch()] == ["texts", "images"]


def test_runs_of_schedules_are_told_of_as_those_of_sensors(watch: Watch) -> None:
    for number in range(5):
        watch.fail(
            reason=f"/in: no files found at {number}", tags={"dagster/schedule_name": "texts_schedule"}
        )
    [found] = watch.watch()
    assert found.title == "texts: a run that texts_schedule started failed"


def test_blocked_publishing_is_not_told_twice(watch: Watch) -> None:
    @dg.asset(key=["texts", "merged_embeddings"])
    def failing() -> None:
        raise dg.Failure("30 of 100 records failed; nothing is published", allow_retries=False)

    watch.ledger.attach("texts", "/out", 1)
    row = watch.ledger.pipeline("texts")
    assert row is not None
    watch.ledger.notice_once(publishing_blocked("texts", row.revision, "30 of 100 records failed").key)
    run_for_real(watch, dg.Definitions([failing]))
    assert watch.watch() == []
    watch.ledger.stop("texts")  # something has changed
    run_for_real(watch, dg.Definitions([failing]))
    assert len(watch.watch()) == 1


def test_a_run_that_dagster_tries_again_is_not_told_of_until_the_last(watch: Watch) -> None:
    first = watch.fail(tags={"dagster/will_retry": "true"})
    assert watch.watch() == []
    last = watch.fail(root=first, tags={"dagster/will_retry": "false", "dagster/retry_number": "1"})
    [found] = watch.watch()
    assert f"/runs/{last}" in found.happened


def test_a_run_over_several_pipelines_names_them(watch: Watch) -> None:
    watch.fail("texts/shard_plan", "images/shard_plan")
    [found] = watch.watch()
    assert found.pipeline == "images, texts"
    assert found.command == "batch-assets run images && batch-assets run texts"


def test_runs_that_are_no_pipelines_are_left_alone(watch: Watch) -> None:
    run = watch.instance.create_run_for_job(unrelated_job)
    watch.instance.report_run_failed(run, "not ours")
    assert watch.watch() == []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            dg.Failure("3 of 4 shards are missing. Ask later.", allow_retries=False),
            "3 of 4 shards are missing.",
        ),
        (ValueError("such a value"), "ValueError: such a value"),
    ],
)
def test_the_words_are_those_of_the_asset_that_failed(watch: Watch, error: Exception, told: str) -> None:
    @dg.asset(key=["texts", "merged_embeddings"])
    def failing() -> None:
        raise error

    run_id = run_for_real(watch, dg.Definitions([failing]))
    [found] = watch.watch()
    assert found.happened == f"/runs/{run_id}: {told}"


def test_assets_of_the_project_are_its_own_business(watch: Watch) -> None:
    watch.fail("texts/report")
    assert watch.watch() == []


def test_a_run_that_comes_to_no_asset_has_its_reason_too(watch: Watch) -> None:
    @dg.resource
    def broken(_: dg.InitResourceContext) -> None:
        raise ConfigurationError("BATCH_ASSETS_NOTIFY: part 1 is no known target")

    @dg.asset(key=["texts", "merged_embeddings"], required_resource_keys={"broken"})
    def unreached() -> None: ...

    run_id = run_for_real(watch, dg.Definitions([unreached], resources={"broken": broken}))
    [found] = watch.watch()
    assert found.happened.startswith(f"/runs/{run_id}: ")
    assert "part 1 is no known target" in found.happened


def run_for_real(watch: Watch, definitions: dg.Definitions) -> str:
    """A run of `texts/merged_embeddings` as `definitions` has it, which fails; its id."""
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=watch.instance,
        asset_selection=[dg.AssetKey(["texts", "merged_embeddings"])],
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    assert not result.success
    return result.run_id


def test_the_resource_makes_the_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_ASSETS_NOTIFY", "webhook:https://host/hook")

    def made(**fields: Any) -> object:
        with dg.build_resources({"notifications": NotificationsResource(**fields)}) as resources:
            return resources.notifications

    assert made() == (WebhookNotifier("https://host/hook"),)
    assert made(targets="log") == (LogNotifier(),)
    assert NotificationsResource().model_dump() == {"targets": ""}, "no secret in the UI"
