"""Planning rounds: from the source's files to registered shards.

How files are cut is `sharding/planner.py`'s business, and which generations another pipeline's
shards make is `sharding/chained.py`'s; this module makes a generation known to
the root and to the ledger, and says what was noticed on the way.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from batch_assets import paths
from batch_assets.control.chaining import is_chained
from batch_assets.control.earlier_ids import refuse_earlier_ids
from batch_assets.control.ownership import read_owner, refuse_remains
from batch_assets.control.pipeline import Pipeline, register_plans, take_root
from batch_assets.control.preflight import check_sizes
from batch_assets.control.upstream_changes import begin_anew, find_touched
from batch_assets.crash_points import crash_point
from batch_assets.errors import ClaimLost, ConfigurationError, SourceError
from batch_assets.executors.base import Executor
from batch_assets.merge.groups import check_merge_by
from batch_assets.plain_text import plain_logger
from batch_assets.requests.database import deployment_database
from batch_assets.requests.planned import PlannedWindows, files_of
from batch_assets.requests.windows import Windows
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.chained import plan_chained
from batch_assets.sharding.known import remember_known
from batch_assets.sharding.plan import PlanResult
from batch_assets.sharding.plan_files import generations, write_plan
from batch_assets.sharding.planner import plan_generation
from batch_assets.sharding.requested import plan_windows
from batch_assets.sharding.unreadable import describe_unreadable, write_unreadable
from batch_assets.sources.images import meta_name
from batch_assets.sources.spool_files import Spools
from batch_assets.storage import Storage, is_local

SPEAK_SECONDS = 10.0
logger = plain_logger(__name__)
NAMED_IN_NOTES = 5
WINDOWS_AT_ONCE = 1_000
"""Windows of requests in one generation, at most."""


@dataclass(frozen=True)
class PlanningResult:
    """What stands after a planning round; `new_keys` is empty where the source held nothing new.

    `all_keys` are the keys of every generation, sorted, superseded ones among them. `records`
    and `bytes` are those of the shards that count.
    """

    generation: int
    new_keys: list[str]
    all_keys: list[str]
    records: int
    bytes: int
    notes: list[str] = field(default_factory=list)


def plan_source(pipeline: Pipeline, *, replace: bool = False) -> PlanningResult:
    """Plan what is new and register it; repeatable, also by two at once.

    With `replace`, the shards of touched and removed files leave the merge; touched shards of another
    pipeline are made anew. Where the very first plan cannot be made, the root is left as it was found.
    """
    refuse_remains(pipeline.storage)
    spools, task = Spools(pipeline.storage), pipeline.executor.task
    folders = _missing_folders(pipeline.storage)
    try:
        results = new_generations(
            pipeline.settings,
            pipeline.executor,
            pipeline.storage,
            replace=replace,
            spools=spools,
            on_progress=_SpokenProgress(pipeline.name),
        )
        for result in results:
            check_merge_by(pipeline.settings.merge_by, result.merged or result.summary.columns, task)
            refuse_earlier_ids(pipeline, result)
        take_root(pipeline)
    except (ClaimLost, ConfigurationError, SourceError):
        if read_owner(pipeline.storage) is None:
            _remove(pipeline.storage, spools.written, folders)
        raise
    if not is_chained(pipeline.settings):
        write_unreadable(pipeline.storage, results[0].unreadable)
    crash_point("shards-cut")
    for result in (result for result in results if result.changes or is_chained(pipeline.settings)):
        # Another planner may have been first: what counts is what the root holds afterwards.
        write_plan(pipeline.storage, dataclasses.replace(result.summary, task=task), result.shards)
        crash_point("plan-written")
        if not is_chained(pipeline.settings):
            remember_known(pipeline.storage, result.summary.base_uri, result.summary.generation)
    new_keys = register_plans(pipeline)
    notes = [note for result in results for note in describe(result, replace=replace)]
    if is_chained(pipeline.settings):
        notes = [*dict.fromkeys(notes), *_follow_upstream(pipeline, replace=replace)]
    else:
        _note_files(pipeline, results[0], replace=replace)
    return planning_result(pipeline, new_keys, notes)


def planning_result(pipeline: Pipeline, new_keys: list[str], notes: Sequence[str] = ()) -> PlanningResult:
    """What stands now, by the ledger."""
    rows = pipeline.ledger.shards(pipeline.name, superseded=True)
    counted = [row for row in rows if not row.superseded]
    return PlanningResult(
        generation=row.generation if (row := pipeline.ledger.pipeline(pipeline.name)) is not None else 0,
        new_keys=new_keys,
        all_keys=[row.key for row in rows],
        records=sum(row.records for row in counted),
        bytes=sum(row.bytes for row in counted),
        notes=list(notes),
    )


def new_generations(
    settings: PipelineSettings,
    executor: Executor,
    root: Storage,
    *,
    replace: bool,
    spools: Spools | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[PlanResult]:
    """What is to be planned now: of files one generation, which may be empty; of another pipeline what it has more."""
    if is_chained(settings):
        return plan_chained(settings, root, max_records=executor.limits.records)
    if settings.source.requests is not None:
        return [_windows_to_plan(settings, executor, root)]
    result = plan_generation(
        within_limits(settings, executor),
        root,
        min_records=executor.limits.min_records,
        replace=replace,
        spools=spools,
        on_progress=on_progress,
    )
    check_sizes(executor, [shard.records for shard in result.shards])
    return [result]


def _windows_to_plan(settings: PipelineSettings, executor: Executor, root: Storage) -> PlanResult:
    """What a plan would make of the windows that wait for one, and how many requests are in none yet."""
    assert settings.source.requests is not None, settings.name
    database = deployment_database()
    waiting = Windows(database, settings, root).waiting(settings.source.requests.max_open).requests
    files, damaged = files_of(PlannedWindows(database, settings.name).unplanned(WINDOWS_AT_ONCE), root)
    newest, limits = (generations(root) or [0])[-1], executor.limits
    result = plan_windows(
        within_limits(settings, executor), root, files, newest, min_records=limits.min_records
    )
    note = f"{waiting:,} requests wait for their window to be sealed, and are not among these records"
    return dataclasses.replace(result, notes=[*([note] if waiting else []), *damaged.values()])


def _missing_folders(storage: Storage) -> list[Path]:
    """The folders, innermost first, that planning makes under a local root before there is a plan."""
    if not is_local(storage.uri):
        return []
    folder, plans = Path(storage.uri, paths.SPOOLS), Path(storage.uri, paths.plan_table("")).parent
    return [each for each in (plans, folder, *folder.parents) if not each.exists()]


def _remove(storage: Storage, files: Sequence[str], folders: Sequence[Path]) -> None:
    """Delete files that this process has written, and the folders that it made for them, if nothing else is in them."""
    storage.delete(files)
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _follow_upstream(pipeline: Pipeline, *, replace: bool) -> list[str]:
    """Tell of the shards that the upstream has computed again, and have them made anew if that is ordered."""
    touched = find_touched(pipeline.settings, pipeline.ledger)
    if not touched:
        return []
    anew = begin_anew(pipeline.settings, pipeline.ledger, touched) if replace else []
    notes: list[str] = []
    if anew:
        notes.append(
            f"{len(anew)} shards are made anew: the upstream has computed them again ({_named(anew)})"
        )
    if left := [key for key in touched if key not in anew]:
        fate = (
            "are at work and left as they are; the same order later replaces them"
            if replace
            else "stay as they are; see `plan --replace`"
        )
        notes.append(
            f"{len(left)} shards are touched: the upstream has computed them again ({_named(left)}); they {fate}"
        )
    return notes


def _note_files(pipeline: Pipeline, result: PlanResult, *, replace: bool) -> None:
    """Tell the ledger which source files are no longer, or again, as they were planned.

    Of a table whose new version waits, nothing: that it waits is to be seen each time.
    """
    if result.waits:
        return
    pipeline.ledger.mark_files(pipeline.name, [] if replace else list(result.touched), "touched")
    pipeline.ledger.mark_files(pipeline.name, list(result.removed), "removed")
    # Gone or changed for a while, and now as they were planned: else they would count as new for ever.
    restored = [
        file.path
        for file in pipeline.ledger.files(pipeline.name)
        if file.state != "planned" and file.path in result.unchanged
    ]
    pipeline.ledger.mark_files(pipeline.name, restored, "planned")


def within_limits(settings: PipelineSettings, executor: Executor) -> PipelineSettings:
    """The settings with shards no larger than one job of the executor takes."""
    most = executor.limits.records
    if most is None or settings.shards.records <= most:
        return settings
    logger.info(
        "shards.records: %d is more than a job takes; shards have %d records", settings.shards.records, most
    )
    return settings.model_copy(update={"shards": settings.shards.model_copy(update={"records": most})})


class _SpokenProgress:
    """Says now and then how much of a long source has been looked at."""

    def __init__(self, name: str) -> None:
        self._name, self._said = name, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._said >= SPEAK_SECONDS:
            self._said = now
            logger.info("planning %s: %.1f of %.1f GB looked at", self._name, done / 1e9, total / 1e9)


def describe(result: PlanResult, *, replace: bool) -> list[str]:
    """What a person should know of a planning round, a sentence each."""
    notes = [f"left out: {kind}" for kind in result.summary.left_out]
    notes += [f"LEFT OUT: {describe_unreadable(result.unreadable)}"] if result.unreadable else []
    notes += result.notes
    for stored, source in result.summary.renamed.items():
        if stored != meta_name(source):  # which is the rule for images, and nothing to tell of each
            notes.append(
                f"column {source!r} is stored as {stored!r}: an output column has that name already, or one that "
                "differs from it in upper and lower case only"
            )
    notes += result.ids.describe()
    if result.table_version is not None and not result.waits:
        notes.append(f"read as a table: its version {result.table_version}, by its own log")
    if result.waits:
        return [*notes, _waiting(result)]
    fate = (
        "their old shards leave the merge"
        if replace
        else "their old shards stay as they are; see `plan --replace`"
    )
    for files, what in (
        (result.touched, "touched since they were planned"),
        (result.removed, "gone from the source"),
    ):
        if files:
            notes.append(f"{len(files)} files are {what} ({_named(files)}); {fate}")
    return notes


def _waiting(result: PlanResult) -> str:
    parts = [(result.touched, "has rows deleted in"), (result.removed, "no longer holds")]
    what = " and ".join(
        f"{verb} {len(files)} planned files ({_named(files)})" for files, verb in parts if files
    )
    return (
        f"version {result.table_version} of the table waits: it {what}; nothing new of it is planned, and all stays "
        "at the version planned before; `plan --replace` takes it over"
    )


def _named(items: Sequence[str]) -> str:
    return ", ".join(items[:NAMED_IN_NOTES]) + (", …" if len(items) > NAMED_IN_NOTES else "")
