"""From accepted requests to shards: windows are sealed, those that are due are planned, and what was planned is noted.

Each step can be repeated, and a crash behind any of them is mended by the next call: a window that a plan has is
never planned again, whether or not the database of requests has heard of it.
"""

from collections.abc import Sequence

import orjson

from batch_assets import paths
from batch_assets.control.pipeline import Pipeline, register_next_plans, take_root
from batch_assets.control.planning import WINDOWS_AT_ONCE, PlanningResult, within_limits
from batch_assets.control.preflight import check_sizes
from batch_assets.crash_points import crash_point
from batch_assets.errors import StorageError
from batch_assets.home import requests_url
from batch_assets.ledger.ledger import Ledger
from batch_assets.plain_text import plain_logger
from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.windows import Segment, Windows
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import Shard
from batch_assets.sharding.plan_files import read_plan, write_plan
from batch_assets.sharding.requested import plan_windows
from batch_assets.storage import open_storage

logger = plain_logger(__name__)


def requests_lease(pipeline: str) -> str:
    """The lease of whoever seals and computes a pipeline's windows."""
    return f"requests:{pipeline}"


def served_elsewhere(settings: PipelineSettings, ledger: Ledger) -> bool:
    """Whether a server is at work for a pipeline of requests: then nobody else seals, and starts, by itself."""
    return (
        settings.source.requests is not None
        and ledger.lease_holder(requests_lease(settings.name)) is not None
    )


def windows_due(settings: PipelineSettings) -> list[str]:
    """What is to be planned now: sealed windows, and since when one waits to be sealed; a schedule asks by itself."""
    if settings.schedule is not None:
        return []
    windows = Windows(RequestsDatabase(requests_url()), settings, open_storage(settings.output.root))
    sealed = [info.path for info in windows.unplanned(WINDOWS_AT_ONCE)]
    waiting = windows.waiting(1)
    return sealed + ([f"waiting since {waiting.since}"] if windows.seconds_until_due() == 0 else [])


def windows_of(pipeline: Pipeline, database: RequestsDatabase | None = None) -> Windows:
    """The windows of a pipeline whose source is requests, in the deployment's own database unless another is named."""
    return Windows(database or RequestsDatabase(requests_url()), pipeline.settings, pipeline.storage)


def plan_requests(
    pipeline: Pipeline, windows: Windows, *, sealed_before: float | None = None, everything: bool = False
) -> list[str]:
    """Seal what is due (or everything), and plan the windows sealed before a time; the keys of the new shards."""
    if windows.seconds_until_due() is not None or windows.unplanned(1):
        take_root(pipeline)
    windows.seal(everything=everything)
    new = register_next_plans(pipeline)
    note_plans(pipeline, windows)
    while found := windows.unplanned(WINDOWS_AT_ONCE, sealed_before):
        row = pipeline.ledger.pipeline(pipeline.name)
        newest = row.generation if row is not None else 0
        result = plan_windows(
            within_limits(pipeline.settings, pipeline.executor),
            pipeline.storage,
            found,
            newest,
            min_records=pipeline.executor.limits.min_records,
        )
        if result.unreadable:
            raise StorageError(f"{result.unreadable[0].reason}; put the window back as it was sealed")
        check_sizes(pipeline.executor, [shard.records for shard in result.shards])
        take_root(pipeline)
        # Another planner may have been first: what counts is what the root holds afterwards.
        write_plan(pipeline.storage, result.summary, result.shards)
        crash_point("windows-planned")
        new += register_next_plans(pipeline)
        note_plans(pipeline, windows)
    return new


def note_plans(pipeline: Pipeline, windows: Windows) -> None:
    """Tell the database of requests what the plans that it has not heard of have of its windows."""
    row = pipeline.ledger.pipeline(pipeline.name)
    for generation in range(windows.newest_generation() + 1, (row.generation if row is not None else 0) + 1):
        try:
            _, shards = read_plan(pipeline.storage, generation)
        except FileNotFoundError:
            continue  # gone with what was kept
        windows.note_planned(generation, _segments(shards))


def _segments(shards: Sequence[Shard]) -> list[Segment]:
    found = [(shard.key, segment) for shard in shards for segment in shard.segments]
    return [
        Segment(window, segment.first_row, segment.last_row, key)
        for key, segment in found
        if (window := paths.window_of(segment.path)) is not None
    ]


def recover_windows(pipeline: Pipeline, windows: Windows) -> int:
    """Tell a database of requests that knows nothing of this pipeline what the sealed windows hold; how many that is.

    What was accepted and not sealed went with the database before it.
    """
    if windows.is_recovered():
        return 0
    found = 0
    for info in pipeline.storage.list(paths.WINDOWS):
        name = paths.window_of(info.path.removeprefix(f"{paths.WINDOWS}/"))
        if name is None:
            continue
        lines = [orjson.loads(line) for line in pipeline.storage.read(info.path).splitlines()]
        found += windows.adopt(name, info.size, lines)
    windows.set_recovered()
    note_plans(pipeline, windows)
    if found:
        logger.warning(
            "%s: %d windows were found under the output root and are known again", pipeline.name, found
        )
    return found


def plan_and_describe(pipeline: Pipeline, windows: Windows) -> PlanningResult:
    """A planning round of everything that waits, as a person orders it."""
    new = plan_requests(pipeline, windows, everything=True)
    rows = pipeline.ledger.shards(pipeline.name, superseded=True)
    row = pipeline.ledger.pipeline(pipeline.name)
    return PlanningResult(
        generation=row.generation if row is not None else 0,
        new_keys=new,
        all_keys=[one.key for one in rows],
        records=sum(one.records for one in rows if not one.superseded),
        bytes=sum(one.bytes for one in rows if not one.superseded),
    )
