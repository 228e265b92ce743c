"""`merged_embeddings`: merges the committed shards, checks the result, publishes it by one swap."""

import time
from collections.abc import Iterator

import dagster as dg

from batch_assets.control.merging import CheckedMerge, merge_lease, merge_shards, publish_merge
from batch_assets.merge.base import CheckOutcome
from batch_assets.orchestration import metadata
from batch_assets.orchestration.run import opened
from batch_assets.settings import PipelineSettings


def build_merged_embeddings(settings: PipelineSettings) -> dg.AssetsDefinition:
    """The unpartitioned asset that is `settings`' result; its two checks block the publishing."""
    key = dg.AssetKey([settings.name, "merged_embeddings"])

    @dg.asset(
        key=key,
        group_name=settings.name,
        deps=[dg.AssetKey([settings.name, "embedding_outputs"])],
        check_specs=[
            dg.AssetCheckSpec(
                "accounting",
                asset=key,
                blocking=True,
                description="planned = embedded + rejected + failed, counted in the merged files.",
            ),
            dg.AssetCheckSpec(
                "vectors",
                asset=key,
                blocking=True,
                description="Every vector has the dimension, is finite, and has the length it should have.",
            ),
        ],
        description="All committed shards as one dataset, published under merged/CURRENT.",
        required_resource_keys={"ledger", settings.executor.type},
        kinds={"parquet"},
    )
    def merged_embeddings(
        context: dg.AssetExecutionContext,
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        started = time.perf_counter()
        with opened(context, settings) as pipeline, merge_lease(pipeline, context.log.info):
            merged = merge_shards(pipeline)
            checks = {"accounting": merged.accounting, "vectors": merged.vectors}
            for name, outcome in checks.items():
                yield _check_result(key, name, outcome)
            failed = [outcome.message for outcome in checks.values() if not outcome.passed]
            if failed:
                raise dg.Failure(
                    description=f"{merged.manifest.version} is not published: {'; '.join(failed)}",
                    allow_retries=False,
                )
            publish_merge(pipeline, merged)
            uri = f"{pipeline.storage.uri}/merged/{merged.manifest.version}"
            yield dg.MaterializeResult(metadata=_metadata(merged, uri, time.perf_counter() - started))

    return merged_embeddings


def _check_result(key: dg.AssetKey, name: str, outcome: CheckOutcome) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=name,
        passed=outcome.passed,
        description=outcome.message,
        metadata=outcome.metadata,
    )


def _metadata(merged: CheckedMerge, uri: str, seconds: float) -> dict[str, object]:
    manifest = merged.manifest
    found = metadata.common(
        rows=manifest.rows,
        rejected=manifest.rejected,
        failed=manifest.failed,
        bytes=sum(part.bytes for part in manifest.parts) + manifest.failures.bytes,
        seconds=seconds,
        tokens=manifest.tokens,
        uri=uri,
        fingerprint=manifest.fingerprint,
    )
    return found | {
        metadata.PLANNED: manifest.planned,
        metadata.SHARDS: len(manifest.parts),
        metadata.VERSION: manifest.version,
    }
