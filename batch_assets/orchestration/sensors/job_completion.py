"""`job_completion`: the control loop's turn for all pipelines, and Dagster's picture in line with the ledger.

Events of services are heard, their jobs asked about, free slots used, and `embedding_outputs`
requested for what has ended. Runs of dead processes are reported failed, and committed shards
that Dagster does not show are reported to it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from batch_assets.control.alerts import alerts_of
from batch_assets.control.loop import Turn, take_turn
from batch_assets.control.pipeline import Pipeline, known_pipeline
from batch_assets.control.request_planning import served_elsewhere
from batch_assets.errors import BatchAssetsError
from batch_assets.executors.registry import AWS_HOSTS, ExecutorHost
from batch_assets.ledger.ledger import Ledger
from batch_assets.notifications.base import Notifier
from batch_assets.notifications.delivery import notify
from batch_assets.orchestration import metadata
from batch_assets.orchestration.catalog import OWN_ASSETS, located_pipelines
from batch_assets.orchestration.collecting import collection_requests
from batch_assets.orchestration.mending import forget_partitions, missing_materializations, report_dead_runs
from batch_assets.patience import in_a_tick
from batch_assets.plain_text import plain_text
from batch_assets.settings.project import LEDGER, NOTIFICATIONS, executor_key


def build_job_completion() -> dg.SensorDefinition:
    """The one sensor of its kind, for all pipelines."""

    @dg.sensor(
        name="job_completion",
        asset_selection=OWN_ASSETS,
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={LEDGER, NOTIFICATIONS, *map(executor_key, AWS_HOSTS)},
        description="Follows jobs at services, starts queued ones in free slots, and has ended ones collected. "
        "Reports dead runs as failed and committed shards as materialized.",
    )
    @in_a_tick()
    def job_completion(
        context: dg.SensorEvaluationContext,
        **_: Any,  # called directly, Dagster hands the resources over here too
    ) -> dg.SensorResult | dg.SkipReason:
        ledger: Ledger = getattr(context.resources, LEDGER)
        notifiers: Sequence[Notifier] = getattr(context.resources, NOTIFICATIONS)
        dead = report_dead_runs(context.instance, ledger)
        events: list[dg.AssetMaterialization | dg.AssetObservation] = []
        events += missing_materializations(context.instance, ledger)
        said = [f"runs of dead processes, reported failed: {', '.join(dead)}"] if dead else []
        hosts = {kind: getattr(context.resources, executor_key(kind)) for kind in AWS_HOSTS}
        pipelines, problems = _at_work(context, ledger, hosts)
        turn = take_turn(pipelines)
        requests: list[dg.RunRequest] = []
        for pipeline in pipelines:
            for alert in alerts_of(pipeline, turn):
                if notify(ledger.notice_once, notifiers, alert):
                    events.append(_shown(pipeline.name, alert.happened))
            requests += collection_requests(context.instance, ledger, pipeline.name)
        said = [plain_text(sentence) for sentence in (*said, *_told(turn), *problems)]
        for sentence in said:
            context.log.info(sentence)
        for settings in located_pipelines(context):
            if settings.source.requests is not None:
                forget_partitions(context.instance, ledger, settings.name)
        if events or requests:
            return dg.SensorResult(run_requests=requests, asset_events=events)
        return dg.SkipReason(
            "; ".join(said) or "every run is alive, every job is known, every shard is shown"
        )

    return job_completion


def _at_work(
    context: dg.SensorEvaluationContext, ledger: Ledger, hosts: Mapping[str, ExecutorHost]
) -> tuple[list[Pipeline], list[str]]:
    """Pipelines that have something at a service, or waiting for it; and what keeps others from it."""
    found: list[Pipeline] = []
    problems: list[str] = []
    for settings in located_pipelines(context):
        if settings.executor.type not in hosts or served_elsewhere(settings, ledger):
            continue
        try:
            pipeline = known_pipeline(settings, ledger, hosts[settings.executor.type].executor(settings))
        except BatchAssetsError as error:
            problems.append(f"{settings.name}: {error}")
            continue
        if pipeline is not None:
            found.append(pipeline)
    return found, problems


def _shown(pipeline: str, sentence: str) -> dg.AssetObservation:
    """A notice beside the pipeline's jobs, for people who look at the UI."""
    return dg.AssetObservation(
        dg.AssetKey([pipeline, "submitted_jobs"]),
        description=sentence,
        metadata={metadata.NOTES: metadata.sentence(sentence)},
    )


def _told(turn: Turn) -> list[str]:
    told = [f"{turn.started} jobs started"] if turn.started else []
    told += [f"{len(turn.ended)} jobs ended"] if turn.ended else []
    told += [f"{name}: {waiting.message}" for name, waiting in turn.waiting.items() if waiting.message]
    return [*told, *(f"{name}: {text}" for name, text in turn.refused.items()), *turn.problems]
