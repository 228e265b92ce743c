"""From accepted requests to shards: windows are sealed, those that are due are planned, and what was planned is noted.

Each step can be repeated, and a crash behind any of them is mended by the next call: a window that a plan has is
never planned again, whether or not the database of requests has heard of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from batch_assets import paths
from batch_assets.control.batch_taking import batches_to_take, take_batches
from batch_assets.control.pipeline import Pipeline, register_next_plans, take_root
from batch_assets.control.planning import WINDOWS_AT_ONCE, PlanningResult, planning_result, within_limits
from batch_assets.control.preflight import check_sizes
from batch_assets.control.request_removal import try_remove_expired
from batch_assets.crash_points import crash_point
from batch_assets.errors import StorageError
from batch_assets.ledger.ledger import Ledger
from batch_assets.plain_text import plain_logger
from batch_assets.requests.database import RequestsDatabase, deployment_database
from batch_assets.requests.planned import PlannedWindows, Segment, files_of
from batch_assets.requests.recovering import KnownWindows, read_window
from batch_assets.requests.windows import Windows
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import Shard
from batch_assets.sharding.plan_files import generations, read_plan, write_plan
from batch_assets.sharding.requested import plan_windows
from batch_assets.storage import FileInfo, Storage

logger = plain_logger(__name__)


@dataclass(frozen=True)
class RequestSource:
    """The windows of one pipeline: how they are sealed, which are planned, and whether the database knows them."""

    windows: Windows
    planned: PlannedWindows
    known: KnownWindows


def request_source(
    settings: PipelineSettings, storage: Storage, database: RequestsDatabase | None = None
) -> RequestSource:
    """Of a pipeline with the output root `storage`, in the deployment's own database unless another is named."""
    database = database or deployment_database()
    name = settings.name
    return RequestSource(
        Windows(database, settings, storage), PlannedWindows(database, name), KnownWindows(database, name)
    )


def requests_lease(pipeline: str) -> str:
    """The lease of whoever seals and computes a pipeline's windows."""
    return f"requests:{pipeline}"


def served_elsewhere(settings: PipelineSettings, ledger: Ledger) -> bool:
    """Whether a server is at work for a pipeline of requests: then nobody else seals, and starts, by itself."""
    is_asked = settings.source.requests is not None
    return is_asked and ledger.lease_holder(requests_lease(settings.name)) is not None


def windows_due(settings: PipelineSettings, storage: Storage) -> list[str]:
    """What is to be planned now: sealed windows, and since when one waits to be sealed; a schedule asks by itself."""
    if settings.schedule is not None:
        return []
    source = request_source(settings, storage)
    sealed = [window.name for window in source.planned.unplanned(WINDOWS_AT_ONCE)]
    sealed += [
        f"{batch.id} at {batch.place}" for batch in batches_to_take(settings.name, source.windows.database)
    ]
    return sealed + ([f"waiting since {source.windows.waiting(1).since}"] if source.windows.is_due() else [])


def plan_requests(
    pipeline: Pipeline, source: RequestSource, *, sealed_before: float | None = None, everything: bool = False
) -> list[str]:
    """Seal what is due (or everything that waits), and plan windows sealed before a time; the keys of the new shards.

    Where nothing is due, nothing but the database is looked at. A window whose file is not as it was sealed is
    passed over: the others are planned before StorageError tells of it.
    """
    windows, planned = source.windows, source.planned
    due = windows.is_due() or (everything and windows.seconds_until_due() is not None)
    if not due and not planned.unplanned(1, sealed_before):
        return []
    take_root(pipeline)
    windows.seal(everything=everything)
    new = register_next_plans(pipeline)
    note_plans(pipeline, planned)
    damaged: dict[str, str] = {}
    while True:
        sealed = planned.unplanned(WINDOWS_AT_ONCE + len(damaged), sealed_before)
        files, found = files_of([window for window in sealed if window.name not in damaged], pipeline.storage)
        damaged |= found
        if not files:
            break
        new += _plan(pipeline, files, damaged)
        note_plans(pipeline, planned)
    if damaged:
        raise StorageError(f"{len(damaged)} windows are not planned: {next(iter(damaged.values()))}")
    return new


def _plan(pipeline: Pipeline, files: Sequence[FileInfo], damaged: dict[str, str]) -> list[str]:
    """Plan one generation of these files, as far as they can be read; the keys of its shards."""
    row = pipeline.ledger.pipeline(pipeline.name)
    executor, newest = pipeline.executor, row.generation if row is not None else 0
    settings = within_limits(pipeline.settings, executor)
    result = plan_windows(settings, pipeline.storage, files, newest, min_records=executor.limits.min_records)
    for file in result.unreadable:
        damaged[paths.window_of(file.path) or file.path] = f"{file.reason}; put it back as it was"
    if not result.shards:
        return []
    check_sizes(executor, [shard.records for shard in result.shards])
    take_root(pipeline)
    # Another planner may have been first: what counts is what the root holds afterwards.
    write_plan(pipeline.storage, result.summary, result.shards)
    crash_point("windows-planned")
    return register_next_plans(pipeline)


def note_plans(pipeline: Pipeline, planned: PlannedWindows) -> None:
    """Tell the database of requests what the plans that it has not heard of have of its windows."""
    row, noted = pipeline.ledger.pipeline(pipeline.name), planned.newest_generation()
    known = row.generation if row is not None else 0
    # A database that has none has not seen which were removed: what there is, is looked up.
    found = range(noted + 1, known + 1) if noted else generations(pipeline.storage)
    for generation in found:
        if generation <= known:
            _, shards = read_plan(pipeline.storage, generation)
            planned.note_planned(generation, _segments(shards))


def _segments(shards: Sequence[Shard]) -> list[Segment]:
    found = [(shard.key, segment) for shard in shards for segment in shard.segments]
    return [
        Segment(window, segment.first_row, segment.last_row, key)
        for key, segment in found
        if (window := paths.window_of(segment.path)) is not None
    ]


def recover_windows(pipeline: Pipeline, source: RequestSource) -> int:
    """Tell a database of requests that knows nothing of this pipeline what the sealed windows hold; how many that is.

    What was accepted and not sealed went with the database before it. A file that is no window is left alone.
    """
    if source.known.is_recovered():
        return 0
    found = 0
    for info in pipeline.storage.list(paths.WINDOWS):
        name = paths.window_of(info.path.removeprefix(f"{paths.WINDOWS}/"))
        if name is None:
            continue
        lines = read_window(pipeline.storage.read(info.path))
        if lines is None:
            logger.error(
                "%s/%s: is no window as it was sealed, and is left alone", pipeline.storage.uri, info.path
            )
            continue
        found += source.known.adopt(name, info.size, lines)
    source.known.set_recovered()
    note_plans(pipeline, source.planned)
    if found:
        logger.warning("%s: %d windows under the output root are known again", pipeline.name, found)
    return found


def plan_all_requests(pipeline: Pipeline) -> PlanningResult:
    """A planning round of everything that waits, as a person orders it."""
    source = request_source(pipeline.settings, pipeline.storage)
    recover_windows(pipeline, source)
    while take_batches(pipeline, source.windows.database):
        pass
    new = plan_requests(pipeline, source, everything=True)
    try_remove_expired(pipeline, source.windows.database)
    return planning_result(pipeline, new)
