"""Which pipelines a code location holds: read from its assets, for sensors that serve them all."""

from collections.abc import Iterator

import dagster as dg

from batch_assets.orchestration.metadata import OWN_TAG, SETTINGS
from batch_assets.settings.pipeline import PipelineSettings

OWN_ASSETS = dg.AssetSelection.tag(OWN_TAG, "")
"""The assets of all pipelines, and none of the project's own."""


def located_pipelines(context: dg.SensorEvaluationContext) -> Iterator[PipelineSettings]:
    """The settings of each pipeline of the sensor's code location, by name."""
    repository = context.repository_def
    if repository is None:
        return
    graph = repository.asset_graph
    for key in sorted(graph.get_all_asset_keys()):
        written = graph.get(key).metadata.get(SETTINGS)
        if written is not None:
            yield PipelineSettings.model_validate(written.value)
