"""`new_input`: new files get a new generation, planned shards get their runs.

Files are new where the source's listing shows them, or an asset that makes the source was materialized.

Acts only for pipelines with `automation: true`, for those of requests while no server is at work for
them, and for others while an order to start them is open: such an order is begun, and seen to its end. Looks at a
bounded stretch of the source's listing in a tick and goes on from there in the next.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import dagster as dg
import pydantic

from batch_assets.control.chaining import is_chained, startable_shards
from batch_assets.control.housekeeping import SourceNews, read_source_news
from batch_assets.control.request_planning import served_elsewhere
from batch_assets.control.triggers import forget_orders, settle_orders, unattended
from batch_assets.errors import BatchAssetsError
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import ShardRow
from batch_assets.ledger.states import State
from batch_assets.ledger.triggers import TriggerRow, TriggerState
from batch_assets.orchestration.catalog import OWN_ASSETS, located_pipelines
from batch_assets.orchestration.mending import know_partitions
from batch_assets.orchestration.metadata import START_TAG
from batch_assets.orchestration.partitions import SHARDS_PER_RUN, range_tags
from batch_assets.orchestration.under_way import assets_under_way
from batch_assets.orchestration.upstream import source_makers, unseen_input
from batch_assets.patience import in_a_tick
from batch_assets.plain_text import plain_text
from batch_assets.retry_policy import NEW_INPUT_ASKED_AGAIN_SECONDS
from batch_assets.settings.pipeline import PipelineSettings

RUNS_PER_TICK = 10
TICK_SECONDS = 40.0  # at 60 Dagster gives a tick up, and lets it run on beside the next one
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
    made: Asked = Asked()
    start: Asked = Asked()
    shards: Asked = Asked()


class Cursor(pydantic.BaseModel):
    """What the sensor remembers from tick to tick; `last` is the pipeline it looked at last."""

    last: str = ""
    turns: dict[str, Turn] = {}


@dataclass
class Tick:
    """What one tick works with, and has come to: the runs to ask for, and what a person should read.

    `busy` are the assets under way.
    """

    instance: dg.DagsterInstance
    ledger: Ledger
    busy: set[dg.AssetKey]
    requests: list[dg.RunRequest] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def build_new_input() -> dg.SensorDefinition:
    """The one sensor of its kind, for all pipelines."""

    @dg.sensor(
        name="new_input",
        asset_selection=OWN_ASSETS,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="For pipelines with automation: true, or an open order to start them: plans new files and "
        "starts planned shards.",
    )
    @in_a_tick()
    def new_input(
        context: dg.SensorEvaluationContext, batch_assets_ledger: dg.ResourceParam[Ledger]
    ) -> dg.SensorResult:
        ledger = batch_assets_ledger
        deadline = time.monotonic() + TICK_SECONDS
        cursor = Cursor.model_validate_json(context.cursor or "{}")
        located = list(located_pipelines(context))
        orders = {row.pipeline: unattended(ledger, row.pipeline) for row in ledger.open_triggers()}
        at_work = [
            settings
            for settings in located
            if (_by_itself(settings) or orders.get(settings.name)) and not served_elsewhere(settings, ledger)
        ]
        busy = assets_under_way(context.instance) if at_work else set[dg.AssetKey]()
        tick = Tick(context.instance, ledger, busy)
        for settings in _from_behind(cursor.last, at_work):
            turn = cursor.turns.setdefault(settings.name, Turn())
            try:
                _look_at_orders(settings, orders.get(settings.name, []), turn, tick)
                if _by_itself(settings):
                    _look_at_source(settings, turn, tick)
                _look_at_shards(settings, turn, tick)
                under_way = any(key.path[0] == settings.name for key in busy)
                tick.said += settle_orders(settings, ledger, at_work=under_way)
            except BatchAssetsError as error:
                tick.said.append(f"{settings.name}: {error}")
            cursor.last = settings.name
            if time.monotonic() > deadline or len(tick.requests) >= RUNS_PER_TICK:
                break
        forget_orders(ledger, {settings.name for settings in located})
        said = [plain_text(sentence) for sentence in tick.said]
        for sentence in said:
            context.log.info(sentence)
        nothing = "no pipeline with automation: true has new input, and none is ordered to start"
        return dg.SensorResult(
            run_requests=tick.requests,
            skip_reason=None if tick.requests else dg.SkipReason("; ".join(said) or nothing),
            cursor=cursor.model_dump_json(),
        )

    return new_input


def _by_itself(settings: PipelineSettings) -> bool:
    """Whether what is new is started without an order; requests have been ordered by whoever sent them."""
    return settings.automation or settings.source.requests is not None


def _from_behind(last: str, pipelines: Sequence[PipelineSettings]) -> list[PipelineSettings]:
    """The pipelines in their order, beginning behind `last`: a tick that ends early starves nobody."""
    return sorted(pipelines, key=lambda settings: (settings.name <= last, settings.name))


def _look_at_orders(settings: PipelineSettings, orders: Sequence[TriggerRow], turn: Turn, tick: Tick) -> None:
    """Ask for the plan that begins the oldest order that waits for it; the plan is new to the others too."""
    key = dg.AssetKey([settings.name, "shard_plan"])
    waiting = [order for order in orders if order.state is TriggerState.WAITING]
    idle = tick.busy.isdisjoint([key, *source_makers(settings)])
    if waiting and idle and _due(turn.start, waiting[0].key, settings.name, tick):
        tick.requests.append(dg.RunRequest(asset_selection=[key], tags={START_TAG: waiting[0].key}))
        tick.busy.add(key)


def _look_at_source(settings: PipelineSettings, turn: Turn, tick: Tick) -> None:
    key = dg.AssetKey([settings.name, "shard_plan"])
    # Files that are being written are not to be planned.
    if not tick.busy.isdisjoint([key, *source_makers(settings)]):
        return
    made = unseen_input(tick.instance, settings)
    if made is not None and _due(turn.made, made, settings.name, tick):
        tick.requests.append(dg.RunRequest(asset_selection=[key]))
        return
    news = read_source_news(settings, tick.ledger, turn.after)
    turn.after = news.cursor
    if news.touched or news.removed:
        tick.said.append(
            f"{settings.name}: {news.describe()}; see `batch-assets plan {settings.name} --replace`"
        )
    if (news.new or news.unplanned) and _due(turn.plan, _mark_of(news), settings.name, tick):
        tick.requests.append(dg.RunRequest(asset_selection=[key]))


def _mark_of(news: SourceNews) -> str:
    return "unplanned" if news.unplanned else news.digest


def _look_at_shards(settings: PipelineSettings, turn: Turn, tick: Tick) -> None:
    """Ask for runs of the shards that nobody has started; never while a run of some is under way."""
    keys = [dg.AssetKey([settings.name, name]) for name in SHARD_ASSETS]
    # A shard whose file is being written fails of it.
    idle = tick.busy.isdisjoint([*keys, *source_makers(settings)])
    if not idle or tick.ledger.stop_requested(settings.name):
        return
    # At a service, READY is a remainder that waits to be collected: `job_completion` asks for that.
    states = UNSTARTED if settings.executor.in_place else UNSTARTED[:2]
    rows = startable_shards(settings, tick.ledger, states, limit=RUNS_PER_TICK * SHARDS_PER_RUN)
    groups = list(_side_by_side(rows))[: RUNS_PER_TICK - len(tick.requests)]
    progress = _progress(settings, tick.ledger)
    again = turn.shards.mark == progress
    if not groups or not _due(turn.shards, progress, settings.name, tick):
        return
    wanted = [row.key for group in groups for row in group]
    # Partitions are added in their order: with the last one Dagster knows all before it. Where the last runs have come
    # to nothing, somebody may have deleted one.
    know_partitions(tick.instance, tick.ledger, settings.name, wanted if again else wanted[-1:])
    for group in groups:
        shards = [row.key for row in group]
        tick.requests.append(dg.RunRequest(asset_selection=keys, tags=range_tags(shards[0], shards[-1])))


def _progress(settings: PipelineSettings, ledger: Ledger) -> str:
    """Differs where runs have come to something: shards collected, of a chained pipeline at a service also queued.

    Each plan begins anew: one that replaces shards may leave as many collected as there were before.
    """
    counts, row = ledger.counts(settings.name), ledger.pipeline(settings.name)
    progress = f"{row.generation if row else 0}:{counts[State.COLLECTED]}"
    if not is_chained(settings) or settings.executor.in_place:
        return progress
    return f"{progress}:{counts[State.PLANNED] + counts[State.PREPARED]}"


def _due(asked: Asked, mark: str, name: str, tick: Tick) -> bool:
    """Whether to ask now: at once where things have moved since, else after ten minutes.

    Without that, a model that cannot be loaded would have a run fail every half minute, all night.
    """
    now = time.time()
    wait = asked.at + NEW_INPUT_ASKED_AGAIN_SECONDS - now
    # One that is longer than any was noted by a clock that was ahead.
    if asked.mark == mark and 0 < wait <= NEW_INPUT_ASKED_AGAIN_SECONDS:
        tick.said.append(f"{name}: the last runs asked for have come to nothing; asked again in {wait:.0f} s")
        return False
    asked.mark, asked.at = mark, now
    return True


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
