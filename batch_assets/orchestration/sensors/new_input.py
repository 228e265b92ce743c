"""`new_input`: new files get a new generation, planned shards get their runs.

Acts only for pipelines with `automation: true`. Looks at a bounded stretch of the source's
listing in a tick and goes on from there in the next.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dagster as dg
import pydantic

from batch_assets.control.housekeeping import SourceNews, read_source_news
from batch_assets.errors import BatchAssetsError
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import ShardRow
from batch_assets.ledger.states import State
from batch_assets.orchestration.catalog import located_pipelines
from batch_assets.orchestration.mending import know_partitions
from batch_assets.orchestration.partitions import SHARDS_PER_RUN, range_tags
from batch_assets.settings.pipeline import PipelineSettings

RUNS_PER_TICK = 10
RUNS_LOOKED_AT = 200
TICK_SECONDS = 40.0  # at 60 Dagster gives a tick up, and lets it run on beside the next one
PATIENCE_SECONDS = 600.0
UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
UNSTARTED = (State.PLANNED, State.PREPARED, State.READY)
SHARD_ASSETS = ("input_shards", "submitted_jobs", "embedding_outputs")


class Asked(pydantic.BaseModel):
    """What was asked for last: the state of things then (`mark`), and when (unix seconds)."""

    mark: str = ""
    at: float = 0.0


class Turn(pydantic.BaseModel):
    """What the sensor remembers of one pipeline: where its listing goes on, and what it asked for."""

    after: str | None = None
    plan: Asked = Asked()
    shards: Asked = Asked()


class Cursor(pydantic.BaseModel):
    """What the sensor remembers from tick to tick; `last` is the pipeline it looked at last."""

    last: str = ""
    turns: dict[str, Turn] = {}


@dataclass
class Tick:
    """What one tick has come to: the runs to ask for, and what a person should read."""

    requests: list[dg.RunRequest]
    said: list[str]


def build_new_input() -> dg.SensorDefinition:
    """The one sensor of its kind, for all pipelines."""

    @dg.sensor(
        name="new_input",
        asset_selection="*",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="For pipelines with automation: true: plans new files and starts planned shards.",
    )
    def new_input(context: dg.SensorEvaluationContext, ledger: dg.ResourceParam[Ledger]) -> dg.SensorResult:
        deadline = time.monotonic() + TICK_SECONDS
        cursor = Cursor.model_validate_json(context.cursor or "{}")
        tick = Tick([], [])
        automated = [settings for settings in located_pipelines(context) if settings.automation]
        busy = _assets_at_work(context.instance) if automated else set[dg.AssetKey]()
        for settings in _from_behind(cursor.last, automated):
            turn = cursor.turns.setdefault(settings.name, Turn())
            try:
                _look_at_source(settings, ledger, turn, busy, tick)
                _look_at_shards(context.instance, settings, ledger, turn, busy, tick)
            except BatchAssetsError as error:
                tick.said.append(f"{settings.name}: {error}")
            cursor.last = settings.name
            if time.monotonic() > deadline or len(tick.requests) >= RUNS_PER_TICK:
                break
        for sentence in tick.said:
            context.log.info(sentence)
        nothing = "no pipeline with automation: true has new input"
        return dg.SensorResult(
            run_requests=tick.requests,
            skip_reason=None if tick.requests else dg.SkipReason("; ".join(tick.said) or nothing),
            cursor=cursor.model_dump_json(),
        )

    return new_input


def _from_behind(last: str, pipelines: Sequence[PipelineSettings]) -> list[PipelineSettings]:
    """The pipelines in their order, beginning behind `last`: a tick that ends early starves nobody."""
    return sorted(pipelines, key=lambda settings: (settings.name <= last, settings.name))


def _look_at_source(
    settings: PipelineSettings, ledger: Ledger, turn: Turn, busy: set[dg.AssetKey], tick: Tick
) -> None:
    key = dg.AssetKey([settings.name, "shard_plan"])
    if key in busy:
        return
    news = read_source_news(settings, ledger, turn.after)
    turn.after = news.cursor
    if news.touched or news.removed:
        tick.said.append(
            f"{settings.name}: {news.describe()}; see `batch-assets plan {settings.name} --replace`"
        )
    if (news.new or news.unplanned) and _due(turn.plan, _mark_of(news), settings.name, tick):
        tick.requests.append(dg.RunRequest(asset_selection=[key]))


def _mark_of(news: SourceNews) -> str:
    return "unplanned" if news.unplanned else news.digest


def _look_at_shards(
    instance: dg.DagsterInstance,
    settings: PipelineSettings,
    ledger: Ledger,
    turn: Turn,
    busy: set[dg.AssetKey],
    tick: Tick,
) -> None:
    """Ask for runs of the shards that nobody has started; never while a run of some is under way."""
    keys = [dg.AssetKey([settings.name, name]) for name in SHARD_ASSETS]
    if not busy.isdisjoint(keys) or ledger.stop_requested(settings.name):
        return
    # At a service, READY is a remainder that waits to be collected: `job_completion` asks for that.
    states = UNSTARTED if settings.executor.in_place else UNSTARTED[:2]
    rows = ledger.shards(settings.name, states=states, limit=RUNS_PER_TICK * SHARDS_PER_RUN)
    groups = list(_side_by_side(rows))[: RUNS_PER_TICK - len(tick.requests)]
    collected = str(ledger.counts(settings.name)[State.COLLECTED])
    if not groups or not _due(turn.shards, collected, settings.name, tick):
        return
    for group in groups:
        shards = [row.key for row in group]
        know_partitions(instance, ledger, settings.name, shards)
        tick.requests.append(dg.RunRequest(asset_selection=keys, tags=range_tags(shards[0], shards[-1])))


def _due(asked: Asked, mark: str, name: str, tick: Tick) -> bool:
    """Whether to ask now: at once where things have moved since, else after ten minutes.

    Without that, a model that cannot be loaded would have a run fail every half minute, all night.
    """
    now = time.time()
    wait = asked.at + PATIENCE_SECONDS - now
    if asked.mark == mark and wait > 0:
        tick.said.append(f"{name}: the last runs asked for have come to nothing; asked again in {wait:.0f} s")
        return False
    asked.mark, asked.at = mark, now
    return True


def _assets_at_work(instance: dg.DagsterInstance) -> set[dg.AssetKey]:
    """The assets of all runs that are under way or queued."""
    runs = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED), limit=RUNS_LOOKED_AT)
    return {key for run in runs for key in run.asset_selection or ()}


def _side_by_side(rows: Sequence[ShardRow]) -> Iterator[list[ShardRow]]:
    """The rows in groups without a gap, each small enough for one run."""
    group: list[ShardRow] = []
    for row in rows:
        follows = group and (row.generation, row.ordinal) == (group[-1].generation, group[-1].ordinal + 1)
        if group and (not follows or len(group) == SHARDS_PER_RUN):
            yield group
            group = []
        group.append(row)
    if group:
        yield group
