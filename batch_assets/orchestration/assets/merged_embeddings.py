"""`merged_embeddings`: merges the committed shards, checks the result, publishes it by one swap."""

import time
from collections.abc import Iterator

import dagster as dg

from batch_assets import paths
from batch_assets.control.contact_sheet import make_contact_sheet
from batch_assets.control.leases import exclusive
from batch_assets.control.merging import merge_shards, publish_merge, shard_rates
from batch_assets.errors import AccountingError
from batch_assets.merge.base import CheckOutcome
from batch_assets.orchestration import metadata
from batch_assets.orchestration.orders import announce, publishing
from batch_assets.orchestration.run import opened
from batch_assets.plain_text import plain_text
from batch_assets.settings.pipeline import FOLDER, PipelineSettings
from batch_assets.settings.project import LEDGER, NOTIFICATIONS, executor_key


def build_merged_embeddings(settings: PipelineSettings) -> dg.AssetsDefinition:
    """The unpartitioned asset that is `settings`' result; its two checks block the publishing."""
    key = dg.AssetKey([settings.name, "merged_embeddings"])

    @dg.asset(
        key=key,
        group_name=settings.name,
        tags={metadata.OWN_TAG: ""},
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
        description=f"All committed shards {_outputs(settings.merge_by)} under `merged/<version>`, in source order. "
        "Published by naming the version in `merged/CURRENT`, after the checks `accounting` and `vectors` have passed.",
        required_resource_keys={LEDGER, NOTIFICATIONS, executor_key(settings.executor.type)},
        kinds={"parquet"},
    )
    def merged_embeddings(
        context: dg.AssetExecutionContext,
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        started = time.perf_counter()
        with opened(context, settings) as pipeline:
            lease = exclusive(pipeline.ledger, f"merge:{settings.name}", pipeline.holder, context.log.info)
            with lease, publishing(context, pipeline):
                try:
                    merged = merge_shards(pipeline)
                except AccountingError as error:
                    yield _check_result(key, "accounting", CheckOutcome(False, str(error)))
                    raise
                checks = {"accounting": merged.accounting, "vectors": merged.vectors}
                for name, outcome in checks.items():
                    yield _check_result(key, name, outcome)
                failed = [outcome.message for outcome in checks.values() if not outcome.passed]
                if failed:
                    raise AccountingError(f"{merged.manifest.version} is not published: {'; '.join(failed)}")
                rates = shard_rates(pipeline, merged.manifest)
                manifest = publish_merge(pipeline, merged)
            uri = f"{pipeline.storage.uri}/{paths.merged_folder(manifest.version)}"
            announce(context, pipeline, manifest, uri)
            seconds = time.perf_counter() - started
            sheet = make_contact_sheet(pipeline, manifest) if settings.source.images else None
            found = metadata.merge_metadata(manifest, uri, seconds, rates, sheet)
            yield dg.MaterializeResult(metadata=found, data_version=dg.DataVersion(manifest.digest))

    return merged_embeddings


def _outputs(merge_by: str | None) -> str:
    if merge_by is None:
        return "as one dataset"
    return (
        f"as a dataset for each {'source folder' if merge_by == FOLDER else f'value of column `{merge_by}`'}"
    )


def _check_result(key: dg.AssetKey, name: str, outcome: CheckOutcome) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=name,
        passed=outcome.passed,
        description=plain_text(outcome.message),
        metadata=outcome.metadata,
    )
