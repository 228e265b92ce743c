"""`new_input`: new files get a new generation, planned shards get their runs.

Acts only for pipelines with `automation: true`. Looks at a bounded stretch of the source's
listing in a tick and goes on from there in the next.
"""

import json
from collections.abc import Iterator

import dagster as dg

from batch_assets.control.housekeeping import SourceNews, read_source_news
from batch_assets.errors import BatchAssetsError
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import ShardRow
from batch_assets.ledger.states import State
from batch_assets.orchestration.catalog import located_pipelines
from batch_assets.orchestration.partitions import SHARDS_PER_RUN, range_tags
from batch_assets.settings import PipelineSettings

RUNS_PER_TICK = 10
RUNS_LOOKED_AT = 200
UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
UNSTARTED = (State.PLANNED, State.PREPARED, State.READY)


def build_new_input() -> dg.SensorDefinition:
    """The one sensor of its kind, for all pipelines."""

    @dg.sensor(
        name="new_input",
        asset_selection="*",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={"ledger"},
        description="For pipelines with automation: true: plans new files and starts planned shards.",
    )
    def new_input(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        ledger: Ledger = context.resources.ledger
        cursors: dict[str, str | None] = json.loads(context.cursor or "{}")
        requests: list[dg.RunRequest] = []
        said: list[str] = []
        for settings in located_pipelines(context):
            if not settings.automation:
                continue
            try:
                news = read_source_news(settings, ledger, cursors.get(settings.name))
            except BatchAssetsError as error:
                said.append(f"{settings.name}: {error}")
                continue
            cursors[settings.name] = news.cursor
            if news.touched or news.removed:
                said.append(f"{settings.name}: {news.describe()}; see `batch-assets plan {settings.name} --replace`")
            if news.new or news.unplanned:
                requests.append(_plan_request(settings, news))
            if not _at_work(context.instance, settings):
                requests.extend(_shard_requests(settings, ledger))
        skipped = "; ".join(said) or "no pipeline with automation: true has new input"
        return dg.SensorResult(
            run_requests=requests[:RUNS_PER_TICK],
            skip_reason=None if requests else dg.SkipReason(skipped),
            cursor=json.dumps(cursors),
        )

    return new_input


def _plan_request(settings: PipelineSettings, news: SourceNews) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{settings.name}:plan:{news.digest}",
        asset_selection=[dg.AssetKey([settings.name, "shard_plan"])],
    )


def _at_work(instance: dg.DagsterInstance, settings: PipelineSettings) -> bool:
    """Whether a run of the pipeline's shards is under way or queued: its shards are not asked for twice."""
    key = dg.AssetKey([settings.name, "embedding_outputs"])
    runs = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED), limit=RUNS_LOOKED_AT)
    return any(key in (run.asset_selection or ()) for run in runs)


def _shard_requests(settings: PipelineSettings, ledger: Ledger) -> Iterator[dg.RunRequest]:
    """Runs for shards that nobody has started, side by side as far as they go."""
    if ledger.stop_requested(settings.name):
        return
    rows = ledger.shards(settings.name, states=UNSTARTED, limit=RUNS_PER_TICK * SHARDS_PER_RUN)
    group: list[ShardRow] = []
    for row in rows:
        follows = group and (row.generation, row.ordinal) == (group[-1].generation, group[-1].ordinal + 1)
        if group and (not follows or len(group) == SHARDS_PER_RUN):
            yield _shard_request(settings, group)
            group = []
        group.append(row)
    if group:
        yield _shard_request(settings, group)


def _shard_request(settings: PipelineSettings, group: list[ShardRow]) -> dg.RunRequest:
    names = ("input_shards", "submitted_jobs", "embedding_outputs")
    # The newest revision in the key: the same shards are asked for again only after they have moved.
    return dg.RunRequest(
        run_key=f"{settings.name}:{group[0].key}:{group[-1].key}:{max(row.revision for row in group)}",
        asset_selection=[dg.AssetKey([settings.name, name]) for name in names],
        tags=range_tags(group[0].key, group[-1].key),
    )
