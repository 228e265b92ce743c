"""`embedding_outputs`: collects each shard: its Parquet, then its commit marker.

Each shard is reported to Dagster as it ends, so that a run's progress shows while it goes and
a shard that fails costs no other one. A shard that somebody else is at is left to them.
"""

from collections.abc import Iterator, Sequence

import dagster as dg

from batch_assets import paths
from batch_assets.control.collection import collect_shards, collectable
from batch_assets.control.shard_result import Result, ShardResult
from batch_assets.ledger.story import StoryEntry
from batch_assets.orchestration import interruption, metadata
from batch_assets.orchestration.batches import batches_metadata
from batch_assets.orchestration.partitions import SHARDS_PER_RUN, shard_partitions
from batch_assets.orchestration.run import opened, runs_of_order
from batch_assets.plain_text import plain_text
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.settings.project import LEDGER, executor_key

NAMED_IN_ERRORS = 5


def build_embedding_outputs(settings: PipelineSettings) -> dg.AssetsDefinition:
    """The partitioned asset that holds `settings`' embeddings."""
    key = dg.AssetKey([settings.name, "embedding_outputs"])

    @dg.asset(
        key=key,
        group_name=settings.name,
        tags={metadata.OWN_TAG: ""},
        deps=[dg.AssetKey([settings.name, "submitted_jobs"])],
        partitions_def=shard_partitions(settings.name),
        backfill_policy=dg.BackfillPolicy.multi_run(SHARDS_PER_RUN),
        output_required=False,
        # Runs that compute here take turns; to fetch what a service has computed they need not.
        pool=settings.executor.type if settings.executor.in_place else None,
        description=f"{_done_by(settings)}, writes results and failures as "
        "Parquet, then the commit marker `shards/<shard>/shard.json`. A shard that is committed already is "
        f'verified and reported again; the run tag `{metadata.RECOMPUTE_TAG}: "true"` has it computed again.',
        required_resource_keys={LEDGER, executor_key(settings.executor.type)},
        kinds={"parquet"},
    )
    def embedding_outputs(
        context: dg.AssetExecutionContext,
    ) -> Iterator[dg.AssetMaterialization | dg.AssetObservation]:
        asked = context.partition_keys
        recompute = context.run.tags.get(metadata.RECOMPUTE_TAG) == "true"
        left: list[ShardResult] = []
        lenient = context.run.tags.get(metadata.COLLECT_TAG) == "finished" or _also_submits(context, settings)
        with opened(context, settings) as pipeline:
            if lenient and not pipeline.executor.in_place and not recompute:
                asked = collectable(pipeline, asked, context.run.tags.get(metadata.JOB_KIND_TAG))
            run_id, done_by = context.run.run_id, runs_of_order(context.run)
            results = collect_shards(pipeline, asked, recompute=recompute, run_id=run_id, done_by=done_by)
            for number, result in enumerate(results, start=1):
                if interruption.has_come():
                    raise dg.DagsterExecutionInterruptedError
                if result.continued is not None:
                    yield _observation(key, result, pipeline.ledger.story(settings.name, result.key))
                    context.log.info(plain_text(result.message))
                    continue
                if result.marker is None:
                    left.append(result)
                    context.log.warning(plain_text(result.message))
                    continue
                uri = f"{pipeline.storage.uri}/{paths.shard_folder(result.key)}"
                found = metadata.shard_metadata(
                    result.marker, uri, pipeline.ledger.story(settings.name, result.key)
                )
                if settings.source.requests is not None:
                    found |= batches_metadata(settings.name, result.key)
                # Yielded, not logged: what is logged is stored only when the step ends.
                yield dg.AssetMaterialization(key, partition=result.key, metadata=found)
                pipeline.ledger.set_pictured(settings.name, [result.key])
                context.log.info(f"shard {result.key} {result.result.value} ({number} of {len(asked)})")
        silent = [result.silent for result in left if result.silent is not None]
        if silent and len(silent) == len(asked):
            # Such a run succeeds: what has ended is asked for again.
            told = {metadata.UNANSWERED: silent[0]}
            yield dg.AssetObservation(key, description=plain_text(silent[0]), metadata=told)
        _end(left, len(asked), lenient)

    return embedding_outputs


def _done_by(settings: PipelineSettings) -> str:
    if settings.executor.in_place:
        return f"Embeds each record of a shard with `{settings.model_name}`"
    return f"Collects what `{settings.model_name}` has made of a shard's records, has tried again what is missing"


def _observation(key: dg.AssetKey, result: ShardResult, story: Sequence[StoryEntry]) -> dg.AssetObservation:
    """What a shard that is not finished has come to: the rows kept, and those tried again."""
    assert result.continued is not None
    return dg.AssetObservation(
        key,
        partition=result.key,
        description=plain_text(result.message),
        metadata={
            metadata.ATTEMPT: result.continued.attempt,
            metadata.ROWS: result.continued.kept,
            metadata.TRIED_AGAIN: result.continued.again,
            metadata.REASONS: dg.MetadataValue.json(result.continued.reasons),
            metadata.STORY: metadata.story_table(story),
        },
    )


def _also_submits(context: dg.AssetExecutionContext, settings: PipelineSettings) -> bool:
    return dg.AssetKey([settings.name, "submitted_jobs"]) in context.job_def.asset_layer.selected_asset_keys


def _end(left: list[ShardResult], asked: int, lenient: bool) -> None:
    """Fail for shards that failed; leave alone, if `lenient`, those that are merely not finished."""
    failed = [result for result in left if result.result in (Result.RETRYING, Result.EXHAUSTED)]
    told = failed if lenient else left
    if not told:
        return
    named = "; ".join(result.message for result in told[:NAMED_IN_ERRORS])
    more = f" (and {len(told) - NAMED_IN_ERRORS} more)" if len(told) > NAMED_IN_ERRORS else ""
    raise dg.Failure(
        description=plain_text(f"{len(told)} of {asked} shards are not materialized: {named}{more}"),
        allow_retries=False,
    )
