"""`cleanup`: shows what a pipeline no longer needs, and removes it when it is materialized.

Built only where `retention` is set. What is a leftover is decided in `control/leftovers.py`.
"""

import contextlib
import datetime
import time
from collections.abc import Iterator

import dagster as dg

from batch_assets.control.cleanup import Leftovers, find_leftovers, owned_pipeline, remove_leftovers
from batch_assets.control.pipeline import Pipeline
from batch_assets.errors import BatchAssetsError
from batch_assets.orchestration import metadata
from batch_assets.orchestration.resources import host_of, ledger_of
from batch_assets.orchestration.schedules import make_schedule
from batch_assets.plain_text import plain_text
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.settings.project import LEDGER, executor_key


def build_cleanup(settings: PipelineSettings) -> dg.Definitions:
    """The asset `cleanup`, its check and its schedule; nothing where no retention is set."""
    if settings.retention is None:
        return dg.Definitions()
    key = dg.AssetKey([settings.name, "cleanup"])
    resources = {LEDGER, executor_key(settings.executor.type)}

    @dg.asset(
        key=key,
        group_name=settings.name,
        tags={metadata.OWN_TAG: ""},
        description="Removes what is older than `retention` says: request files, raw results, spools, superseded "
        "shards, old merged versions. Never what belongs to a shard that is not settled, nor the published version. "
        "Its check `leftovers` shows what a materialization would remove now, and removes nothing.",
        required_resource_keys=resources,
    )
    def cleanup(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        started = time.perf_counter()
        with _known(context, settings) as pipeline:
            removed = remove_leftovers(
                pipeline, pipeline.ledger.now(), lambda text: context.log.info(plain_text(text))
            )
        seconds = round(time.perf_counter() - started, 3)
        return dg.MaterializeResult(
            metadata={metadata.SECONDS: seconds, **metadata.leftovers_metadata(removed)}
        )

    @dg.asset_check(
        asset=key,
        name="leftovers",
        description="What `cleanup` would remove now. Reads only; warns where there is anything.",
        required_resource_keys=resources,
    )
    def leftovers(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with _known(context, settings) as pipeline:
            found = find_leftovers(pipeline, pipeline.ledger.now())
        return dg.AssetCheckResult(
            passed=not found.files,
            severity=dg.AssetCheckSeverity.WARN,
            description=describe(found),
            metadata=metadata.leftovers_metadata(found),
        )

    return dg.Definitions(assets=[cleanup], asset_checks=[leftovers], schedules=_schedules(settings, key))


def describe(found: Leftovers) -> str:
    """A sentence on what there is."""
    if not found.files:
        return "nothing is left over"
    kinds = ", ".join(f"{kind.files:,} {name.value}" for name, kind in found.kinds.items() if kind.files)
    return f"{found.files:,} files with {found.bytes:,} bytes may go: {kinds}; materialize cleanup to remove them"


@contextlib.contextmanager
def _known(
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext, settings: PipelineSettings
) -> Iterator[Pipeline]:
    """The pipeline, where this ledger works on its root: unlike other assets, this one takes no root over."""
    try:
        yield owned_pipeline(settings, ledger_of(context), host_of(context, settings).executor(settings))
    except BatchAssetsError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error


def _schedules(settings: PipelineSettings, key: dg.AssetKey) -> list[dg.ScheduleDefinition]:
    """The schedule of `retention.schedule`: one or none. Raises ConfigurationError."""
    schedule = settings.retention.schedule if settings.retention is not None else None
    if schedule is None:
        return []

    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        at = context.scheduled_execution_time.astimezone(datetime.UTC).isoformat()
        return dg.RunRequest(run_key=at, asset_selection=[key])

    description = "Removes what is older than the pipeline's retention says."
    name = f"{settings.name}_cleanup"
    return [make_schedule(settings, name, key, schedule, tick, description)]
