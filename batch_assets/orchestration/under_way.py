"""What Dagster has under way, queued runs included: so that nothing is asked for twice."""

from collections.abc import Mapping

import dagster as dg

RUNNING = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
WAITING = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED]
WAITING_LOOKED_AT = 200
"""A backfill may have thousands in the queue. What runs is bounded by the deployment's own limits."""


def assets_under_way(instance: dg.DagsterInstance, tags: Mapping[str, str] | None = None) -> set[dg.AssetKey]:
    """The assets of all runs that are under way or queued; of those with these tags, if any are given."""
    runs = list(instance.get_runs(dg.RunsFilter(statuses=RUNNING, tags=tags)))
    runs += instance.get_runs(dg.RunsFilter(statuses=WAITING, tags=tags), limit=WAITING_LOOKED_AT)
    found = {key for run in runs for key in run.asset_selection or ()}
    # A run of a whole job, such as a scheduled one, selects nothing: its plan tells which assets it makes.
    whole = {
        run.execution_plan_snapshot_id
        for run in runs
        if not run.asset_selection and not run.asset_check_selection
    }
    return found.union(*(_assets_of_plan(instance, plan) for plan in whole if plan is not None))


def _assets_of_plan(instance: dg.DagsterInstance, plan: str) -> set[dg.AssetKey]:
    outputs = (output for step in instance.get_execution_plan_snapshot(plan).steps for output in step.outputs)
    return {
        output.properties.asset_key for output in outputs if output.properties and output.properties.asset_key
    }
