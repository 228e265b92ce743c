"""The walk over a source's files that a plan makes: what is due is read, its records are cut into shards.

Which files there are is told by the listing; what becomes of the result is in `planner.py`.
"""

import datetime
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from batch_assets.errors import UnreadableFile
from batch_assets.settings.pipeline import FOLDER, PipelineSettings
from batch_assets.settings.source import UNIQUE
from batch_assets.sharding.cutting import ShardCutter
from batch_assets.sharding.files_alike import FilesAlike
from batch_assets.sharding.known import KnownSource
from batch_assets.sharding.opening import column_scan, open_sources, text_columns
from batch_assets.sharding.plan import PlannedTable, PlanSummary, Shard
from batch_assets.sharding.unreadable import Unreadable
from batch_assets.sources.base import Segment, SourceFile, Stretch
from batch_assets.sources.hive import HivePartitions
from batch_assets.sources.listing import Listing
from batch_assets.sources.record_ids import IdCounter
from batch_assets.sources.shards import normalize_source
from batch_assets.sources.spool_files import Spools
from batch_assets.storage import FileInfo


class Halfway(Exception):
    """A file could be read to some row, and no further."""

    def __init__(self, file: Unreadable) -> None:
        super().__init__(file.reason)
        self.file = file


def walk_over(
    make: Callable[[Mapping[str, Unreadable]], "SourceWalk"],
    touched: frozenset[str] = frozenset(),
    superseded: Sequence[str] = (),
) -> "SourceWalk":
    """A walk that came to its end; `make` gives one that passes over what others could read to some row only."""
    passed_over: dict[str, Unreadable] = {}
    while True:
        walk = make(passed_over)
        try:
            walk.plan(touched, superseded)
        except Halfway as error:
            passed_over[error.file.path] = error.file
            continue
        return walk


class SourceWalk:
    """One walk over the source's files. What cannot be read is left out, as is what is `passed_over`.

    A file that turns out so in the middle has left its traces: Halfway is raised, and another walk passes it over.
    """

    def __init__(
        self,
        settings: PipelineSettings,
        spools: Spools,
        listing: Listing,
        known: KnownSource,
        partitions: HivePartitions,
        *,
        min_records: int,
        on_progress: Callable[[int, int], None] | None,
        passed_over: Mapping[str, Unreadable],
    ) -> None:
        shards = settings.shards
        self._longest = shards.max_record_bytes
        self.files: list[SourceFile] = []
        self.columns = column_scan(settings, listing.format, known.columns)
        self.ids = IdCounter(exact=settings.source.ids == UNIQUE)
        self.sources = open_sources(
            settings,
            listing.format,
            listing.location.storage,
            spools,
            shards.max_record_bytes,
            partitions.values,
            listing.table,
        )
        self.cutter = ShardCutter(
            known.generation + 1,
            records=shards.records,
            bytes=shards.bytes,
            min_records=min_records,
            split=self._split,
            by_folder=settings.merge_by == FOLDER,
        )
        self.alike = FilesAlike(known.columns or (), text_columns(settings), partitions.types)
        self.unreadable: list[Unreadable] = []
        self._passed_over = passed_over
        self._listing = listing
        self._known = known
        self._limit = settings.source.limit
        self._on_progress = on_progress
        self._total = self._done = 0
        self._touched_by = ""

    def _split(self, segment: Segment, records: int) -> tuple[Segment, Segment]:
        return self.sources.of(segment.path).split(segment, records)

    def summary(
        self,
        shards: Sequence[Shard],
        uri: str,
        *,
        left_out: Sequence[str] = (),
        superseded: Sequence[str] = (),
        table: PlannedTable | None = None,
        partitions: Mapping[str, str] = MappingProxyType({}),
    ) -> PlanSummary:
        """The generation that the walk has cut into `shards`; `uri` is the source's as it is written."""
        columns = self.columns.columns()
        return PlanSummary(
            generation=self._known.generation + 1,
            source_uri=normalize_source(uri),
            base_uri=self._listing.location.storage.uri,
            format=self._listing.format,
            columns={column.stored: column.type for column in columns},
            renamed={column.stored: column.source for column in columns if column.stored != column.source},
            shards=len(shards),
            records=sum(shard.records for shard in shards),
            bytes=sum(shard.bytes for shard in shards),
            files=self.files,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            max_record_bytes=self._longest,
            left_out=left_out,
            superseded=superseded,
            table=table,
            partitions=dict(partitions),
        )

    def plan(self, touched: frozenset[str], superseded: Sequence[str]) -> None:
        """Walk over what is new, touched (if it is to be replaced) or left over, in the order of paths."""
        listed = {info.path for info in self._listing.files}
        kept: dict[str, list[Segment]] = {}
        for key in superseded:
            for segment in self._known.shards[key].segments:
                if segment.path in listed and segment.path not in touched:
                    kept.setdefault(segment.path, []).append(segment)
        planned = self._known.records - sum(self._known.shards[key].records for key in superseded)
        planned += sum(segment.records for segments in kept.values() for segment in segments)
        left = None if self._limit is None else max(self._limit - planned, 0)
        self._total = sum(info.size for info in self._listing.files)
        self.sources.expect([info for info in self._listing.files if self._is_due(info, touched)])
        for info in self._listing.files:
            for segment in kept.get(info.path, ()):
                self.cutter.add_segment(segment)
            if self._is_due(info, touched):
                start = self._known.files.get(info.path) if info.path not in touched else None
                if info.path in self._passed_over:
                    self.unreadable.append(self._passed_over[info.path])
                elif left is None or left > 0:
                    taken = self._plan_file_if_readable(info, start, left)
                    left = None if left is None else left - taken
            self._done += info.size
            self._tell(0)
        for info in self._listing.files:
            if info.path in kept:
                self._look_again(info, kept[info.path])

    def _look_again(self, info: FileInfo, segments: Sequence[Segment]) -> None:
        """Look at records that an earlier generation hands over: this one's types must hold them, their ids count."""
        for stretch in self.sources.of(info.path).scan(info, segments[0].spool, 0, 0, self.columns):
            if stretch.ids is None:
                continue
            for segment in segments:
                first, last = np.searchsorted(stretch.rows, [segment.first_row, segment.last_row])
                self.ids.add(stretch.ids[first:last])
        self.columns.take_names()

    def _is_due(self, info: FileInfo, touched: frozenset[str]) -> bool:
        """Whether a file is new, or to be planned anew, or was planned up to a limit."""
        before = self._known.files.get(info.path)
        if before is None or info.path in touched:
            return True
        return before.version == info.version and not before.complete

    def _tell(self, byte: int) -> None:
        if self._on_progress is not None:
            self._on_progress(min(self._done + byte, self._total), self._total)

    def _plan_file_if_readable(self, info: FileInfo, start: SourceFile | None, left: int | None) -> int:
        """The same; a file that cannot be read is left out, unless some of it is planned already."""
        try:
            return self._plan_file(info, start, left)
        except UnreadableFile as error:
            if info.path in self._known.files:
                raise
            found = Unreadable(info.path, info.version, str(error), *(error.beside or ()))
            # Columns are declared, and looked at, before the first records come.
            if self.columns.take_names() or self._touched_by == info.path:
                raise Halfway(found) from error
            self.unreadable.append(found)
            return 0

    def _plan_file(self, info: FileInfo, start: SourceFile | None, left: int | None) -> int:
        """Cut one file, from where an earlier generation ended; returns the number of records taken."""
        source = self.sources.of(info.path)
        row, byte, earlier = (
            (start.next_row, start.next_byte, start.records) if start is not None else (0, 0, 0)
        )
        # One record more than is wanted tells whether there are more.
        spool = source.prepare(info, None if left is None else earlier + left + 1)
        self.cutter.begin(info.path, info.version, spool, row, byte)
        taken, complete = 0, True
        for stretch in source.scan(info, spool, row, byte, self.columns):
            self._touched_by = info.path
            room = None if left is None else left - taken
            complete = room is None or len(stretch.rows) <= room
            rows, ends = stretch.rows[:room], stretch.ends[:room]
            if len(rows):
                self.cutter.add(Stretch(rows, ends))
                if stretch.ids is not None:
                    self.ids.add(stretch.ids[:room])
                row, byte = int(rows[-1]) + 1, int(ends[-1])
                taken += len(rows)
                self._tell(byte)
            if not complete:
                break
        self.cutter.end()
        self.alike.add(info.path, self.columns.take_names())
        self.files.append(
            SourceFile(info.path, info.size, info.version, earlier + taken, row, byte, complete)
        )
        return taken
