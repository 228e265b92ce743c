"""`input_shards`: reads each shard, checks every record, writes its input manifest."""

import time

import dagster as dg

from batch_assets.control.preparation import prepare_shards
from batch_assets.orchestration import metadata
from batch_assets.orchestration.partitions import SHARDS_PER_RUN, shard_partitions
from batch_assets.orchestration.run import opened
from batch_assets.settings.pipeline import PipelineSettings


def build_input_shards(settings: PipelineSettings) -> dg.AssetsDefinition:
    """The partitioned asset that checks `settings`' records."""

    @dg.asset(
        key=[settings.name, "input_shards"],
        group_name=settings.name,
        deps=[dg.AssetKey([settings.name, "shard_plan"])],
        partitions_def=shard_partitions(settings.name),
        backfill_policy=dg.BackfillPolicy.multi_run(SHARDS_PER_RUN),
        description="Checks each record of a shard and rejects the bad ones, each with its reason. "
        "Writes `shards/<shard>/input.json`.",
        required_resource_keys={"ledger", settings.executor.type},
        kinds={settings.source.format or "files"},
    )
    def input_shards(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        with opened(context, settings) as pipeline:
            started = time.perf_counter()
            for prepared in prepare_shards(pipeline, context.partition_keys):
                if prepared.error:
                    context.log.error(f"shard {prepared.key}: {prepared.error}")
                found = metadata.common(
                    planned=prepared.planned,
                    rows=prepared.valid,
                    rejected=prepared.rejected,
                    failed=0,
                    bytes=prepared.bytes,
                    seconds=time.perf_counter() - started,
                    tokens=prepared.tokens or 0,
                    uri=prepared.uri,
                    fingerprint=pipeline.known_fingerprint,
                )
                found |= {
                    metadata.LENGTHS: metadata.length_picture(prepared.lengths, "characters"),
                    metadata.REASONS: dg.MetadataValue.json(prepared.reasons),
                    metadata.ERROR: prepared.error or "none",
                }
                context.add_asset_metadata(found, partition_key=prepared.key)
                started = time.perf_counter()
        return dg.MaterializeResult()

    return input_shards
