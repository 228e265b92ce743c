"""A pipeline's own schedule: at its times, new files are planned, embedded and merged.

A tick asks for a run and changes nothing, so that testing a schedule in the UI is harmless.
"""

import datetime
from collections.abc import Callable
from typing import Any

import dagster as dg
from dagster._utils.schedules import reverse_cron_string_iterator

from batch_assets.orchestration.metadata import START_TAG
from batch_assets.orchestration.under_way import assets_under_way
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.settings.timing import cron_of

SCHEDULE_TAG = "dagster/schedule_name"  # Dagster's own, on the runs of its schedules


def build_schedules(settings: PipelineSettings) -> list[dg.ScheduleDefinition]:
    """The schedule that `settings.schedule` asks for: one or none."""
    if settings.schedule is None:
        return []
    name, plan = f"{settings.name}_schedule", dg.AssetKey([settings.name, "shard_plan"])

    def tick(context: dg.ScheduleEvaluationContext) -> Any:
        # A plan of many files may take longer than from one tick to the next.
        if _is_planning(context, name):
            return dg.SkipReason("the run that the tick before asked for is still planning")
        at = context.scheduled_execution_time.astimezone(datetime.UTC).isoformat()
        return dg.RunRequest(run_key=at, asset_selection=[plan], tags={START_TAG: f"schedule {at}"})

    description = "Plans new files; sensors then embed and merge what there is to do, once."
    return [make_schedule(settings, name, plan, settings.schedule, tick, description)]


def make_schedule(
    settings: PipelineSettings,
    name: str,
    asset: dg.AssetKey,
    written: str,
    tick: Callable[[dg.ScheduleEvaluationContext], Any],
    description: str,
) -> dg.ScheduleDefinition:
    """A schedule of one asset, on by default, at the times `written`, whose settings have been checked."""
    return dg.ScheduleDefinition(
        name=name,
        target=dg.AssetSelection.assets(asset),
        cron_schedule=cron_of(written),
        execution_timezone=settings.timezone,
        execution_fn=tick,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=description,
    )


def _is_planning(context: dg.ScheduleEvaluationContext, name: str) -> bool:
    try:
        instance = context.instance
    except dg.DagsterInvariantViolationError:
        return False  # evaluated by hand, where nothing runs
    return bool(assets_under_way(instance, {SCHEDULE_TAG: name}))


def last_tick(settings: PipelineSettings, now: float) -> float | None:
    """When the pipeline's schedule was due last before `now` (unix seconds); None where it has none."""
    if settings.schedule is None:
        return None
    ticks = reverse_cron_string_iterator(now, cron_of(settings.schedule), settings.timezone)
    return next(iter(ticks)).timestamp()
