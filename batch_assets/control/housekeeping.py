"""What a turn of the control loop tidies up. The verbs that move shards are in the files beside this one."""

import hashlib
from dataclasses import dataclass

from batch_assets import paths
from batch_assets.control.chaining import is_chained, known_upstream
from batch_assets.control.request_planning import windows_due
from batch_assets.control.upstream_changes import look_for_touched
from batch_assets.embeddings.marker import ShardMarker, read_marker
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import ShardRow
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.chained import plans_behind
from batch_assets.sharding.changes import compare_source
from batch_assets.sharding.plan_files import read_summary
from batch_assets.sharding.planner import source_uri
from batch_assets.sources.listing import locate
from batch_assets.storage import Storage, open_storage

NAMED = 5


def committed_marker(ledger: Ledger, row: ShardRow) -> tuple[ShardMarker, str] | None:
    """The shard's commit marker and the URI of its folder; None where it is not committed any more."""
    pipeline = ledger.pipeline(row.pipeline)
    if pipeline is None:
        return None
    storage = open_storage(pipeline.root)
    found = read_marker(storage, row.key)
    return None if found is None else (found[0], f"{storage.uri}/{paths.shard_folder(row.key)}")


@dataclass(frozen=True)
class SourceNews:
    """What a stretch of the source's listing shows against the plan. `cursor` is where to go on.

    `unplanned`: the pipeline has no plan at all yet, and the source is not empty.
    """

    unplanned: bool
    new: list[str]
    touched: list[str]
    removed: list[str]
    cursor: str | None

    @property
    def digest(self) -> str:
        """Differs where the new files differ."""
        return hashlib.sha256("\0".join(self.new).encode()).hexdigest()[:16]

    def describe(self) -> str:
        """Touched and removed files in words."""
        parts = [(self.touched, "touched"), (self.removed, "removed")]
        return ", ".join(
            f"{len(paths)} files {what} ({', '.join(paths[:NAMED])})" for paths, what in parts if paths
        )


def read_source_news(settings: PipelineSettings, ledger: Ledger, after: str | None) -> SourceNews:
    """Look at the next thousand files of the source, behind path `after`; notes the touched and removed ones.

    Of another pipeline's shards, at what it has committed since `after`, a cursor.
    """
    row = ledger.pipeline(settings.name)
    storage = open_storage(settings.output.root)
    if is_chained(settings):
        return _upstream_news(settings, ledger, storage, after)
    if settings.source.requests is not None:
        return SourceNews(False, windows_due(settings, storage), [], [], None)
    try:
        summary = read_summary(storage, row.generation) if row is not None and row.generation else None
    except FileNotFoundError:
        summary = None
    if row is None or summary is None:
        return SourceNews(_has_files(settings), [], [], [], None)
    limit = settings.source.limit
    changes = compare_source(
        settings,
        lambda first, last: ledger.files_between(settings.name, first, last),
        summary.format,
        after,
        # What lies behind a limit is no news: planning would leave it out again.
        full=limit is not None and row.planned >= limit,
    )
    if not changes.waits:
        ledger.mark_files(settings.name, changes.touched, "touched")
        ledger.mark_files(settings.name, changes.removed, "removed")
    return SourceNews(False, changes.new, changes.touched, changes.removed, changes.cursor)


def _upstream_news(
    settings: PipelineSettings, ledger: Ledger, root: Storage, after: str | None
) -> SourceNews:
    """New are the upstream's generations; touched, the shards that it has computed again."""
    row, upstream = ledger.pipeline(settings.name), known_upstream(settings, ledger)
    planned = row.generation if row is not None else 0
    # Where the ledger knows that there is nothing more, the plans' files need not be listed.
    behind = upstream is None or upstream.generation != planned
    new = [f"g{number:04d}" for number in plans_behind(settings, root)] if behind else []
    if planned == 0:
        return SourceNews(bool(new), [], [], [], None)
    look = look_for_touched(settings, ledger, after)
    return SourceNews(False, new, look.touched, [], look.cursor)


def _has_files(settings: PipelineSettings) -> bool:
    """Whether there is anything to plan yet."""
    location = locate(source_uri(settings))
    return location.single is not None or next(location.storage.list(), None) is not None
