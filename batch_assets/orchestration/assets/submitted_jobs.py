"""`submitted_jobs`: puts each prepared shard's job into the ledger's queue.

For an executor in place the job is ready at once: whoever materializes `embedding_outputs`
computes it.
"""

import time

import dagster as dg

from batch_assets import paths
from batch_assets.control.preparation import queue_shards
from batch_assets.orchestration import metadata
from batch_assets.orchestration.partitions import SHARDS_PER_RUN, shard_partitions
from batch_assets.orchestration.run import opened, runs_of_order
from batch_assets.settings import PipelineSettings


def build_submitted_jobs(settings: PipelineSettings) -> dg.AssetsDefinition:
    """The partitioned asset that queues `settings`' jobs."""

    @dg.asset(
        key=[settings.name, "submitted_jobs"],
        group_name=settings.name,
        deps=[dg.AssetKey([settings.name, "input_shards"])],
        partitions_def=shard_partitions(settings.name),
        backfill_policy=dg.BackfillPolicy.multi_run(SHARDS_PER_RUN),
        description="Puts a shard's job into the ledger's queue; for an executor in place it is ready at once.",
        required_resource_keys={"ledger", settings.executor.type},
        kinds={settings.executor.type},
    )
    def submitted_jobs(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        with opened(context, settings) as pipeline:
            recompute = context.run.tags.get(metadata.RECOMPUTE_TAG) == "true"
            started = time.perf_counter()
            done_by = runs_of_order(context.run)
            rows = queue_shards(pipeline, context.partition_keys, recompute=recompute, done_by=done_by)
            seconds = (time.perf_counter() - started) / max(len(rows), 1)
            for row in rows:
                found = metadata.common(
                    planned=row.records,
                    rows=row.records - row.rejected,
                    rejected=row.rejected,
                    failed=row.failed,
                    bytes=row.bytes,
                    seconds=seconds,
                    tokens=row.tokens or 0,
                    uri=f"{pipeline.storage.uri}/{paths.shard_folder(row.key)}",
                    fingerprint=pipeline.fingerprint,
                )
                found |= {metadata.STATE: row.state.value, metadata.ATTEMPT: row.attempt}
                context.add_asset_metadata(found, partition_key=row.key)
        return dg.MaterializeResult()

    return submitted_jobs
