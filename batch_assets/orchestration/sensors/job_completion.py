"""`job_completion`: the control loop's turn, and Dagster's picture in line with the ledger.

For executors in place that is all there is to it: runs of dead processes are reported failed,
and committed shards that Dagster does not show are reported to it. Events and polling of
services come with the executors that need them.
"""

import dagster as dg

from batch_assets.ledger.ledger import Ledger
from batch_assets.orchestration.mending import missing_materializations, report_dead_runs


def build_job_completion() -> dg.SensorDefinition:
    """The one sensor of its kind, for all pipelines."""

    @dg.sensor(
        name="job_completion",
        asset_selection="*",
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports dead runs as failed and committed shards as materialized. Starts nothing.",
    )
    def job_completion(
        context: dg.SensorEvaluationContext, ledger: dg.ResourceParam[Ledger]
    ) -> dg.SensorResult | dg.SkipReason:
        dead = report_dead_runs(context.instance, ledger)
        events = missing_materializations(context.instance, ledger)
        if events:
            return dg.SensorResult(asset_events=events)
        if dead:
            return dg.SkipReason(f"runs of dead processes, reported failed: {', '.join(dead)}")
        return dg.SkipReason("every run is alive and every committed shard is shown")

    return job_completion
