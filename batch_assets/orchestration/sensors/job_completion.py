"""`job_completion`: brings Dagster's picture in line with the ledger's truth.

For executors in place that is all there is to it: runs of dead processes are reported failed,
and committed shards that Dagster does not show are reported to it. Events and polling of
services come with the executors that need them.
"""

import dagster as dg

from batch_assets.control.housekeeping import committed_marker
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import ShardRow
from batch_assets.orchestration import metadata

RUNS_PER_TICK = 20
SHARDS_PER_TICK = 50


def build_job_completion() -> dg.SensorDefinition:
    """The one sensor of its kind, for all pipelines."""

    @dg.sensor(
        name="job_completion",
        asset_selection="*",
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={"ledger"},
        description="Reports dead runs as failed and committed shards as materialized. Starts nothing.",
    )
    def job_completion(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        ledger: Ledger = context.resources.ledger
        dead = _report_dead_runs(context.instance, ledger)
        events = _missing_materializations(context.instance, ledger)
        if not events:
            return dg.SkipReason(f"{dead} dead runs reported failed" if dead else "the picture is true")
        return dg.SensorResult(asset_events=events)

    return job_completion


def _report_dead_runs(instance: dg.DagsterInstance, ledger: Ledger) -> int:
    reported = 0
    for run_id in ledger.dead_runs(RUNS_PER_TICK):
        run = instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            instance.report_run_failed(run, "its process is dead; its shards are free again")
            reported += 1
        ledger.forget_run(run_id)
    return reported


def _missing_materializations(instance: dg.DagsterInstance, ledger: Ledger) -> list[dg.AssetMaterialization]:
    """Events for committed shards that Dagster does not show; those that it does are ticked off."""
    events: list[dg.AssetMaterialization] = []
    for row in ledger.unpictured(SHARDS_PER_TICK):
        key = dg.AssetKey([row.pipeline, "embedding_outputs"])
        found = committed_marker(ledger, row)
        if found is None or _is_shown(instance, key, row):
            ledger.set_pictured(row.pipeline, [row.key])
            continue
        marker, uri = found
        events.append(
            dg.AssetMaterialization(key, partition=row.key, metadata=metadata.shard_metadata(marker, uri))
        )
    return events


def _is_shown(instance: dg.DagsterInstance, key: dg.AssetKey, row: ShardRow) -> bool:
    """Whether Dagster has a materialization of the shard since it was committed."""
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[row.key], after_timestamp=row.updated_at - 1)
    return bool(instance.fetch_materializations(wanted, limit=1).records)
