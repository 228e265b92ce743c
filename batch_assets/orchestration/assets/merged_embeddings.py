"""`merged_embeddings`: merges the committed shards, checks the result, publishes it by one swap."""

import time
from collections.abc import Iterator

import dagster as dg

from batch_assets import paths
from batch_assets.control.contact_sheet import make_contact_sheet
from batch_assets.control.leases import exclusive
from batch_assets.control.merging import CheckedMerge, merge_shards, publish_merge, shard_rates
from batch_assets.control.parity import check_parity, refusal
from batch_assets.control.pipeline import Pipeline
from batch_assets.errors import AccountingError, NotReady
from batch_assets.merge.base import CheckOutcome
from batch_assets.orchestration import metadata
from batch_assets.orchestration.checks import (
    ACCOUNTING,
    VECTORS,
    check_published,
    check_result,
    check_specs,
    parity_result,
)
from batch_assets.orchestration.orders import announce, publishing
from batch_assets.orchestration.run import opened
from batch_assets.settings.pipeline import FOLDER, PipelineSettings
from batch_assets.settings.project import LEDGER, NOTIFICATIONS, executor_key

Results = Iterator[dg.MaterializeResult | dg.AssetCheckResult]


def build_merged_embeddings(settings: PipelineSettings) -> dg.AssetsDefinition:
    """The unpartitioned asset that is `settings`' result, with its checks, which can be executed by themselves."""
    key = dg.AssetKey([settings.name, "merged_embeddings"])
    spec = dg.AssetSpec(
        key,
        group_name=settings.name,
        tags={metadata.OWN_TAG: ""},
        deps=[dg.AssetKey([settings.name, "embedding_outputs"])],
        description=f"All committed shards {_outputs(settings.merge_by)} under `merged/<version>`, in source order. "
        "Published by naming the version in `merged/CURRENT`, after its checks.",
        kinds={"parquet"},
        skippable=True,
    )

    @dg.multi_asset(
        name=key.to_python_identifier(),
        specs=[spec],
        check_specs=check_specs(settings, key),
        can_subset=True,
        required_resource_keys={LEDGER, NOTIFICATIONS, executor_key(settings.executor.type)},
    )
    def merged_embeddings(context: dg.AssetExecutionContext) -> Results:
        started = time.perf_counter()
        with opened(context, settings) as pipeline:
            if key not in context.selected_asset_keys:
                checks = {check.name for check in context.selected_asset_check_keys}
                yield from check_published(pipeline, key, checks)
                return
            lease = exclusive(pipeline.ledger, f"merge:{settings.name}", pipeline.holder, context.log.info)
            with lease, publishing(context, pipeline):
                try:
                    merged = merge_shards(pipeline)
                except AccountingError as error:
                    yield check_result(key, ACCOUNTING, CheckOutcome(False, str(error)))
                    raise
                yield from _checked(pipeline, merged, key)
                rates = shard_rates(pipeline, merged.manifest)
                manifest = publish_merge(pipeline, merged)
            uri = f"{pipeline.storage.uri}/{paths.merged_folder(manifest.version)}"
            announce(context, pipeline, manifest, uri)
            seconds = time.perf_counter() - started
            sheet = make_contact_sheet(pipeline, manifest) if settings.source.images else None
            found = metadata.merge_metadata(manifest, uri, seconds, rates, sheet)
            yield dg.MaterializeResult(
                asset_key=key, metadata=found, data_version=dg.DataVersion(manifest.digest)
            )

    return merged_embeddings


def _checked(pipeline: Pipeline, merged: CheckedMerge, key: dg.AssetKey) -> Iterator[dg.AssetCheckResult]:
    """What the checks find. Raises AccountingError where that blocks publishing."""
    checks = {ACCOUNTING: merged.accounting, VECTORS: merged.vectors}
    for name, outcome in checks.items():
        yield check_result(key, name, outcome)
    failed = [outcome.message for outcome in checks.values() if not outcome.passed]
    if failed:
        raise AccountingError(f"{merged.manifest.version} is not published: {'; '.join(failed)}")
    if pipeline.settings.parity_mode != "off":
        parity = check_parity(pipeline, merged.manifest)
        refused = refusal(pipeline, merged, parity)
        yield parity_result(key, parity, blocks=refused is not None)
        if refused is not None:
            # What could not be compared may be by the next time, without any change of the shards.
            raise (AccountingError if parity.compared else NotReady)(refused)


def _outputs(merge_by: str | None) -> str:
    if merge_by is None:
        return "as one dataset"
    return (
        f"as a dataset for each {'source folder' if merge_by == FOLDER else f'value of column `{merge_by}`'}"
    )
