"""Cutting a stream of records into shards, in source order, with bounded memory.

What the records are is told by stretches and segments; where those come from is `planner.py`.
"""

from collections.abc import Callable

import numpy as np

from batch_assets.errors import ConfigurationError
from batch_assets.paths import shard_key
from batch_assets.sharding.plan import Shard
from batch_assets.sources.base import Segment, Stretch

MOST_SHARDS = 100_000

Split = Callable[[Segment, int], tuple[Segment, Segment]]
"""Cuts a segment behind its first n records."""


class ShardCutter:
    """Fills shards up to `records` and `bytes`, across files and folders; with `by_folder`, each folder by itself.

    A record larger than `bytes` gets a shard of its own. Where the last shard (of a folder, with
    `by_folder`) has fewer than `min_records`, it shares with the one before it, if together they
    have enough for both; for that, one finished shard is held back.
    """

    def __init__(
        self,
        generation: int,
        *,
        records: int,
        bytes: int,
        min_records: int,
        split: Split,
        by_folder: bool = False,
    ) -> None:
        self.shards: list[Shard] = []
        self._generation = generation
        self._most_records = records
        self._most_bytes = bytes
        self._min_records = min_records
        self._split = split
        self._by_folder = by_folder
        self._folder: str | None = None
        self._held: list[Segment] = []
        self._current: list[Segment] = []
        self._records = self._bytes = 0  # of `_current` without its open segment
        self._open: Segment | None = None

    def begin(self, path: str, version: str, spool: str, row: int, byte: int) -> None:
        """The stretches to come are of this file, from `row` and `byte` on."""
        self._enter(path)
        self._open = Segment(path, version, row, row, byte, byte, 0, spool)

    def add(self, stretch: Stretch) -> None:
        """Take the file's next records."""
        rows, ends = stretch.rows, stretch.ends
        start, count = 0, len(rows)
        while start < count:
            assert self._open is not None, "begin a file first"
            taken = self._records + self._open.records
            room = self._open.first_byte + self._most_bytes - self._bytes
            stop = min(
                start + self._most_records - taken, int(np.searchsorted(ends, room, side="right")), count
            )
            if stop <= start:
                if taken:
                    self._close()
                    continue
                stop = start + 1
            segment = self._open
            self._open = Segment(
                segment.path, segment.version, segment.first_row, int(rows[stop - 1]) + 1, segment.first_byte,
                int(ends[stop - 1]), segment.records + stop - start, segment.spool,
            )  # fmt: skip
            start = stop

    def end(self) -> None:
        """The file has no more records."""
        self._take_open()
        self._open = None

    def add_segment(self, segment: Segment) -> None:
        """Take a segment that an earlier plan has cut, as it is."""
        self._enter(segment.path)
        size = segment.last_byte - segment.first_byte
        full = self._records + segment.records > self._most_records or self._bytes + size > self._most_bytes
        if self._current and full:
            self._close()
        self._append(segment)

    def finish(self) -> list[Shard]:
        """All shards, once there is nothing more to come."""
        self._leave()
        return self.shards

    def _enter(self, path: str) -> None:
        folder = path.rpartition("/")[0] if self._by_folder else ""
        if folder != self._folder:
            self._leave()
            self._folder = folder

    def _leave(self) -> None:
        """Close the folder: even out its tail, and let its last two shards go."""
        if self._current:
            total = self._records + sum(segment.records for segment in self._held)
            # Where both would come out too small, one at least is left large enough.
            if self._held and self._records < self._min_records and total >= 2 * self._min_records:
                self._even_out()
            self._close()
        self._emit(self._held)
        self._held = []

    def _close(self) -> None:
        """The current shard is full; what is open goes on in the next one."""
        self._take_open()
        self._emit(self._held)
        self._held, self._current = self._current, []
        self._records = self._bytes = 0

    def _take_open(self) -> None:
        segment = self._open
        if segment is not None and segment.records:
            self._append(segment)
            self._open = Segment(
                segment.path, segment.version, segment.last_row, segment.last_row, segment.last_byte,
                segment.last_byte, 0, segment.spool,
            )  # fmt: skip

    def _append(self, segment: Segment) -> None:
        self._current.append(segment)
        self._records += segment.records
        self._bytes += segment.last_byte - segment.first_byte

    def _even_out(self) -> None:
        """Move records from the end of the held shard to the beginning of the current one."""
        total = self._records + sum(segment.records for segment in self._held)
        missing = max(total // 2, 1) - self._records
        moved: list[Segment] = []
        while missing > 0:
            segment = self._held.pop()
            if segment.records > missing:
                rest, segment = self._split(segment, segment.records - missing)
                self._held.append(rest)
            moved.insert(0, segment)
            missing -= segment.records
        self._current = _joined([*moved, *self._current])

    def _emit(self, segments: list[Segment]) -> None:
        if not segments:
            return
        if len(self.shards) == MOST_SHARDS:
            raise self._too_many()
        key = shard_key(self._generation, len(self.shards))
        self.shards.append(Shard(key, tuple(segments)))

    def _too_many(self) -> ConfigurationError:
        """The error for a plan of too many shards: what limits a shard is what to change."""
        records = sum(shard.records for shard in self.shards) // MOST_SHARDS
        size = sum(shard.bytes for shard in self.shards) // MOST_SHARDS
        if 2 * records < self._most_records and 2 * size < self._most_bytes and self._by_folder:
            return ConfigurationError(
                f"merge_by: folder: shards of a folder each, {records:,} records on average, make more than "
                f"{MOST_SHARDS:,} shards; leave merge_by out, or name a column: then shards cross folders"
            )
        limits = f"shards.records: {self._most_records:,} and shards.bytes: {self._most_bytes:,}"
        return ConfigurationError(
            f"{limits} make more than {MOST_SHARDS:,} shards, of {records:,} records and {size:,} bytes on average; "
            f"raise {'shards.bytes' if 2 * records < self._most_records else 'shards.records'}"
        )


def _joined(segments: list[Segment]) -> list[Segment]:
    """Put neighbouring pieces of one file together again."""
    result: list[Segment] = []
    for segment in segments:
        last = result[-1] if result else None
        if last is not None and (last.path, last.version, last.spool, last.last_byte, last.last_row) == (
            segment.path, segment.version, segment.spool, segment.first_byte, segment.first_row,
        ):  # fmt: skip
            result[-1] = Segment(
                last.path, last.version, last.first_row, segment.last_row, last.first_byte, segment.last_byte,
                last.records + segment.records, last.spool,
            )  # fmt: skip
        else:
            result.append(segment)
    return result
