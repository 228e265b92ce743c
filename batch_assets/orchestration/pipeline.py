"""One pipeline's Dagster definitions, from its settings."""

import warnings

import dagster as dg

from batch_assets.errors import ConfigurationError
from batch_assets.orchestration.assets.cleanup import build_cleanup
from batch_assets.orchestration.assets.embedding_outputs import build_embedding_outputs
from batch_assets.orchestration.assets.input_shards import build_input_shards
from batch_assets.orchestration.assets.merged_embeddings import build_merged_embeddings
from batch_assets.orchestration.assets.shard_plan import build_shard_plan
from batch_assets.orchestration.assets.submitted_jobs import build_submitted_jobs
from batch_assets.orchestration.request_account import build_request_observation
from batch_assets.orchestration.schedules import build_schedules
from batch_assets.plain_text import plain_text
from batch_assets.settings.pipeline import PipelineSettings


def build_pipeline_definitions(settings: PipelineSettings) -> dg.Definitions:
    """The five assets and their checks, and `cleanup` where it is set; resources and sensors are the deployment's.

    Raises ConfigurationError for a value that Dagster cannot take.
    """
    with warnings.catch_warnings():
        # backfill_policy and friends are beta in Dagster 1.13; their behaviour is pinned by our tests. The warnings of
        # a project around the pipeline are its own.
        for category in (dg.BetaWarning, dg.PreviewWarning):
            warnings.simplefilter("ignore", category)
        try:
            return _build(settings)
        except Exception as error:  # whatever it is, it concerns this pipeline alone
            reason = plain_text(f"{type(error).__name__}: {error}")
            raise ConfigurationError(
                f"pipeline {settings.name!r}: Dagster cannot take its definitions: {reason}"
            ) from error


def _build(settings: PipelineSettings) -> dg.Definitions:
    own = dg.Definitions(
        assets=[
            build_shard_plan(settings),
            build_input_shards(settings),
            build_submitted_jobs(settings),
            build_embedding_outputs(settings),
            build_merged_embeddings(settings),
        ],
        schedules=build_schedules(settings),
        sensors=[] if settings.source.requests is None else [build_request_observation(settings)],
    )
    return dg.Definitions.merge(own, build_cleanup(settings))
