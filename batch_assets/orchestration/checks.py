"""The check that stands beside an asset: parity, of executors in place.

Those that block publishing are within `merged_embeddings`.
"""

import dagster as dg

from batch_assets.control.parity import measure_parity
from batch_assets.orchestration import metadata
from batch_assets.orchestration.run import opened
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.settings.project import LEDGER, executor_key


def build_parity_check(settings: PipelineSettings) -> dg.AssetChecksDefinition:
    """Embeds a sample of `settings`' records again, by the model's own library."""

    @dg.asset_check(
        asset=dg.AssetKey([settings.name, "merged_embeddings"]),
        name="parity",
        description="A sample embedded again by plain sentence-transformers in float32; the lowest cosine counts.",
        required_resource_keys={LEDGER, executor_key(settings.executor.type)},
    )
    def parity(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with opened(context, settings) as pipeline:
            found = measure_parity(pipeline)
        return dg.AssetCheckResult(
            passed=found.passed,
            description=f"lowest cosine {found.lowest_cosine:.6f} over {found.sampled} records "
            f"({found.dtype} against float32); {found.threshold} is asked for",
            metadata={
                metadata.LOWEST_COSINE: found.lowest_cosine,
                metadata.THRESHOLD: found.threshold,
                metadata.ROWS: found.sampled,
                metadata.DTYPE: found.dtype,
            },
        )

    return parity
