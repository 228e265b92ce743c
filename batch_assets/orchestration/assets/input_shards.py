"""`input_shards`: reads each shard, checks every record, writes its input manifest."""

import time
from collections.abc import Iterator
from typing import Any

import dagster as dg

from batch_assets.control.chaining import waiting_sentence
from batch_assets.control.preparation import prepare_shards
from batch_assets.orchestration import metadata
from batch_assets.orchestration.partitions import SHARDS_PER_RUN, shard_partitions
from batch_assets.orchestration.run import opened
from batch_assets.plain_text import plain_text
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.settings.project import LEDGER, executor_key


def build_input_shards(settings: PipelineSettings) -> dg.AssetsDefinition:
    """The partitioned asset that checks `settings`' records."""
    key = dg.AssetKey([settings.name, "input_shards"])

    @dg.asset(
        key=key,
        group_name=settings.name,
        tags={metadata.OWN_TAG: ""},
        deps=[dg.AssetKey([settings.name, "shard_plan"]), *_upstream(settings)],
        partitions_def=shard_partitions(settings.name),
        backfill_policy=dg.BackfillPolicy.multi_run(SHARDS_PER_RUN),
        description="Checks each record of a shard and rejects the bad ones, each with its reason. "
        "Writes `shards/<shard>/input.json`.",
        required_resource_keys={LEDGER, executor_key(settings.executor.type)},
        kinds={settings.source.format or "files"},
    )
    def input_shards(
        context: dg.AssetExecutionContext,
    ) -> Iterator[dg.MaterializeResult | dg.AssetMaterialization]:
        shown: dict[str, dict[str, Any]] = {}
        waits: list[str] = []
        with opened(context, settings) as pipeline:
            started = time.perf_counter()
            for prepared in prepare_shards(pipeline, context.partition_keys):
                if prepared.waits:
                    context.log.warning(plain_text(prepared.waits))
                    waits.append(prepared.key)
                    continue
                if prepared.error:
                    context.log.error(plain_text(f"shard {prepared.key}: {prepared.error}"))
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
                    metadata.ERROR: plain_text(prepared.error or "none"),
                }
                shown[prepared.key] = found
                started = time.perf_counter()
        if waits:
            # The output would stand for every shard of the run: these few are shown one by one.
            for shard, found in shown.items():
                yield dg.AssetMaterialization(key, partition=shard, metadata=found)
            raise dg.Failure(
                description=f"{len(waits)} of {len(waits) + len(shown)} shards are not materialized: "
                + waiting_sentence(settings, waits),
                allow_retries=False,
            )
        for shard, found in shown.items():
            metadata.show(context, shard, found)
        yield dg.MaterializeResult()

    return input_shards


def _upstream(settings: PipelineSettings) -> list[dg.AssetDep]:
    """The shards that these are made from, partition by partition, where they are another pipeline's."""
    if settings.source.pipeline is None:
        return []
    key = dg.AssetKey([settings.source.pipeline, "embedding_outputs"])
    return [dg.AssetDep(key, partition_mapping=dg.IdentityPartitionMapping())]
