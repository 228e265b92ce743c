"""`shard_plan`: lists the source, cuts it into shards, adds them as partitions."""

import time

import dagster as dg

from batch_assets.control.planning import plan_source
from batch_assets.control.request_planning import plan_all_requests
from batch_assets.orchestration import metadata
from batch_assets.orchestration.mending import shown_keys
from batch_assets.orchestration.orders import starting
from batch_assets.orchestration.partitions import add_partitions
from batch_assets.orchestration.request_account import check_requests, request_checks
from batch_assets.orchestration.run import opened
from batch_assets.orchestration.upstream import source_makers, unseen_input
from batch_assets.plain_text import plain_text
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.settings.project import LEDGER, executor_key


def build_shard_plan(settings: PipelineSettings) -> dg.AssetsDefinition:
    """The unpartitioned asset that plans `settings`' source."""
    upstream = settings.source.pipeline
    what = f"Cuts `{settings.source.uri}` into shards: partitions of the assets that follow. New files get new shards"
    if upstream is not None:
        what = f"Takes over the shards of pipeline `{upstream}`, key for key: partitions of the assets that follow"

    if settings.source.requests is not None:
        what = "Seals the requests that wait and cuts their windows into shards: partitions of the assets that follow"

    @dg.asset(
        key=[settings.name, "shard_plan"],
        group_name=settings.name,
        tags={metadata.OWN_TAG: ""},
        deps=[*([dg.AssetKey([upstream, "shard_plan"])] if upstream else []), *source_makers(settings)],
        description=f"{what}; what is planned is never planned again.",
        required_resource_keys={LEDGER, executor_key(settings.executor.type)},
        metadata={metadata.SETTINGS: dg.MetadataValue.json(settings.model_dump(mode="json"))},
        kinds={"plan"},
        check_specs=request_checks(settings),
    )
    def shard_plan(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        started = time.perf_counter()
        with opened(context, settings) as pipeline, starting(context, pipeline):
            # Whoever makes the source may have made its files anew.
            made = unseen_input(context.instance, settings) is not None
            replace = made or context.run.tags.get(metadata.REPLACE_TAG) == "true"
            if settings.source.requests is not None:
                planned = plan_all_requests(pipeline)
            else:
                planned = plan_source(pipeline, replace=replace)
            add_partitions(context.instance, settings.name, shown_keys(pipeline.ledger, settings.name))
            for note in planned.notes:
                context.log.warning(plain_text(note))
            found = metadata.common(
                planned=planned.records,
                rows=planned.records,
                rejected=0,
                failed=0,
                bytes=planned.bytes,
                seconds=time.perf_counter() - started,
                tokens=pipeline.ledger.totals(settings.name).tokens,
                uri=f"{pipeline.storage.uri}/plan",
                fingerprint=pipeline.known_fingerprint,
                partition=False,
            )
            found |= {
                metadata.GENERATION: planned.generation,
                metadata.SHARDS: len(planned.all_keys),
                metadata.NEW_SHARDS: len(planned.new_keys),
                metadata.NOTES: metadata.bullets(planned.notes),
            }
            checks = list(check_requests(settings, pipeline.ledger))
        return dg.MaterializeResult(metadata=found, check_results=checks)

    return shard_plan
