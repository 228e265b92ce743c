"""`failure_notification`: a person hears of a failed run, and once of many that fail alike.

What makes runs alike, and the words, are in `notifications/events.py`.
"""

from collections.abc import Sequence

import dagster as dg

from batch_assets.control.alerts import is_blocked
from batch_assets.ledger.ledger import Ledger
from batch_assets.notifications.base import Notifier
from batch_assets.notifications.delivery import notify
from batch_assets.notifications.events import family_key, run_failed
from batch_assets.orchestration.metadata import OWN_TAG
from batch_assets.orchestration.schedules import SCHEDULE_TAG

# Dagster's own tags.
BACKFILL_TAG = "dagster/backfill"
SENSOR_TAG = "dagster/sensor_name"
WILL_RETRY_TAG = "dagster/will_retry"


def build_failure_notification() -> dg.SensorDefinition:
    """The one sensor of its kind, for all pipelines."""

    # Dagster hands over five runs a tick at most, so the interval is what two hundred wait for; and each of them once,
    # so that the ledger is waited for here as in a run (see `patience.in_a_tick`).
    @dg.run_failure_sensor(
        name="failure_notification",
        minimum_interval_seconds=10,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notifies of failed runs, once for each backfill and each family of re-executions. "
        "Starts nothing.",
    )
    def failure_notification(
        context: dg.RunFailureSensorContext,
        batch_assets_ledger: dg.ResourceParam[Ledger],
        batch_assets_notifications: dg.ResourceParam[Sequence[Notifier]],
    ) -> None:
        ledger = batch_assets_ledger
        run = context.dagster_run
        pipelines = _pipelines_of(context)
        # A run that Dagster tries again by itself is news only once that has failed too.
        if not pipelines or run.tags.get(WILL_RETRY_TAG) == "true":
            return
        if any(is_blocked(ledger, name) for name in pipelines) and _was_merging(context):
            return
        family = run.root_run_id or run.run_id
        notification = run_failed(
            pipelines,
            run.run_id,
            _reason(context),
            backfill=run.tags.get(BACKFILL_TAG, ""),
            started_by=run.tags.get(SENSOR_TAG) or run.tags.get(SCHEDULE_TAG, ""),
            family=family,
        )
        # A run executed again, of a backfill or in another hour, is told of with its family all the same.
        if notification.key != family_key(family) and not ledger.notice_once(family_key(family)):
            return
        if notify(ledger.notice_once, batch_assets_notifications, notification):
            context.log.info(f"notified: {notification.title}")

    return failure_notification


def _pipelines_of(context: dg.RunFailureSensorContext) -> list[str]:
    """The names of the pipelines whose assets or checks the run was to make; none for other runs."""
    repository = context.repository_def
    if repository is None:
        return []
    run = context.dagster_run
    keys = {*(run.asset_selection or ()), *(check.asset_key for check in run.asset_check_selection or ())}
    if not keys and repository.has_job(run.job_name):
        keys = set(repository.get_job(run.job_name).asset_layer.selected_asset_keys)
    graph = repository.asset_graph
    own = {key for key in keys if graph.has(key) and OWN_TAG in graph.get(key).tags}
    plans = {name: dg.AssetKey([name, "shard_plan"]) for name in {key.path[0] for key in own}}
    return sorted(name for name, plan in plans.items() if graph.has(plan) and OWN_TAG in graph.get(plan).tags)


def _was_merging(context: dg.RunFailureSensorContext) -> bool:
    """Whether `merged_embeddings` is all that failed in the run."""
    failed = {event.step_key for event in context.get_step_failure_events()}
    return bool(failed) and all((key or "").endswith("__merged_embeddings") for key in failed)


def _reason(context: dg.RunFailureSensorContext) -> str:
    """What the first step that failed says, in its own words; else what Dagster says of the run."""
    for event in context.get_step_failure_events():
        data = event.step_failure_data
        if data.user_failure_data is not None and data.user_failure_data.description:
            return data.user_failure_data.description
        if data.error is not None:
            return (data.error.cause or data.error).message
    failure = context.failure_event
    # Only a run that ended by itself has data; one that was reported failed has the reporter's sentence.
    error = failure.job_failure_data.error if failure.event_specific_data is not None else None
    return (error.cause or error).message if error is not None else failure.message or ""
