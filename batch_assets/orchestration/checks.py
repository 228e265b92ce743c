"""The checks of `merged_embeddings`, as Dagster shows them: accounting, vectors and, in place, parity.

They are part of the asset, which publishes only after them. Executed by themselves they look at
what is published.
"""

from collections.abc import Collection, Iterator
from typing import Any

import dagster as dg

from batch_assets.control.parity import check_parity
from batch_assets.control.pipeline import Pipeline
from batch_assets.errors import NotReady
from batch_assets.merge.base import CheckOutcome
from batch_assets.merge.checks import check_accounting, check_vectors
from batch_assets.merge.parity import ParityOutcome
from batch_assets.merge.publishing import open_current
from batch_assets.orchestration import metadata
from batch_assets.plain_text import plain_text
from batch_assets.settings.pipeline import PipelineSettings

ACCOUNTING, VECTORS, PARITY = "accounting", "vectors", "parity"


def check_specs(settings: PipelineSettings, asset: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """What is checked; all of it blocks publishing, parity where the settings say so."""
    found = [
        dg.AssetCheckSpec(
            ACCOUNTING,
            asset=asset,
            blocking=True,
            description="planned = embedded + rejected + failed, counted in the merged files.",
        ),
        dg.AssetCheckSpec(
            VECTORS,
            asset=asset,
            blocking=True,
            description="Every vector has the dimension, is finite, and has the length it should have.",
        ),
    ]
    if settings.parity_mode != "off":
        spec = dg.AssetCheckSpec(
            PARITY,
            asset=asset,
            blocking=settings.parity_mode == "block",
            description="A sample embedded again by the model's own library in float32; the lowest cosine counts.",
        )
        found.append(spec)
    return found


def check_result(asset: dg.AssetKey, name: str, outcome: CheckOutcome) -> dg.AssetCheckResult:
    """What `accounting` or `vectors` found."""
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=outcome.passed,
        description=plain_text(outcome.message),
        metadata=outcome.metadata,
    )


def parity_result(asset: dg.AssetKey, outcome: ParityOutcome, *, blocks: bool) -> dg.AssetCheckResult:
    """What `parity` found; an error where that blocks publishing, else a warning."""
    told: dict[str, Any] = {
        metadata.THRESHOLD: outcome.threshold,
        metadata.ROWS: outcome.compared,
        metadata.DTYPE: outcome.dtype,
    }
    if outcome.lowest_cosine is not None:
        told[metadata.LOWEST_COSINE] = outcome.lowest_cosine
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=PARITY,
        passed=outcome.passed,
        severity=dg.AssetCheckSeverity.ERROR if blocks else dg.AssetCheckSeverity.WARN,
        description=plain_text(outcome.message),
        metadata=told,
    )


def check_published(
    pipeline: Pipeline, asset: dg.AssetKey, names: Collection[str]
) -> Iterator[dg.AssetCheckResult]:
    """The checks `names` of the published version. Raises NotReady where there is none."""
    manifest = open_current(pipeline.storage)
    if manifest is None:
        raise NotReady(
            f"pipeline {pipeline.name} has published nothing yet; materialize merged_embeddings first"
        )
    if ACCOUNTING in names:
        yield check_result(asset, ACCOUNTING, check_accounting(pipeline.storage, manifest))
    if VECTORS in names:
        yield check_result(asset, VECTORS, check_vectors(pipeline.storage, manifest))
    if PARITY in names:
        found = check_parity(pipeline, manifest, anew=True)
        yield parity_result(asset, found, blocks=pipeline.settings.parity_mode == "block")
