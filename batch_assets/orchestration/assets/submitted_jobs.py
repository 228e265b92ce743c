"""`submitted_jobs`: puts each prepared shard's job into the ledger's queue.

For an executor in place the job is ready at once: whoever materializes `embedding_outputs`
computes it.
"""

import time
from typing import Any

import dagster as dg

from batch_assets import paths
from batch_assets.control.pipeline import Pipeline
from batch_assets.control.preparation import queue_shards
from batch_assets.ledger.rows import ShardRow
from batch_assets.orchestration import metadata
from batch_assets.orchestration.partitions import SHARDS_PER_RUN, shard_partitions
from batch_assets.orchestration.run import opened, runs_of_order
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.settings.project import LEDGER, executor_key


def build_submitted_jobs(settings: PipelineSettings) -> dg.AssetsDefinition:
    """The partitioned asset that queues `settings`' jobs."""

    @dg.asset(
        key=[settings.name, "submitted_jobs"],
        group_name=settings.name,
        tags={metadata.OWN_TAG: ""},
        deps=[dg.AssetKey([settings.name, "input_shards"])],
        partitions_def=shard_partitions(settings.name),
        backfill_policy=dg.BackfillPolicy.multi_run(SHARDS_PER_RUN),
        description=_describe(settings),
        required_resource_keys={LEDGER, executor_key(settings.executor.type)},
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
                if row.job is not None:
                    found |= _job_metadata(pipeline, row)
                metadata.show(context, row.key, found)
        return dg.MaterializeResult()

    return submitted_jobs


def _describe(settings: PipelineSettings) -> str:
    if settings.executor.in_place:
        return "Says that a shard may be computed: it is ready at once, for whoever materializes embedding_outputs."
    return (
        f"Renders a shard's records as requests, uploads them, and queues its job. Whenever {settings.executor.type} "
        "has a free slot, the control loop (`job_completion`, or `batch-assets run`) starts the next one."
    )


def _job_metadata(pipeline: Pipeline, row: ShardRow) -> dict[str, Any]:
    """What the shard's newest job asks for, and the most that it can cost."""
    job = pipeline.ledger.job(pipeline.name, row.key, row.job) if row.job is not None else None
    if job is None:
        return {}
    return {
        metadata.REQUESTS: job.records,
        metadata.REQUEST_BYTES: job.bytes,
        metadata.BOUND_USD: job.bound_usd,
        metadata.JOB_KIND: job.kind,
    }
