"""What every source reads and yields: files, segments of files, and batches of records.

One implementation per format stands beside this file; the way from a file to its
implementation is `registry.py`. How a source is cut into shards belongs to `sharding/`.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch_assets.sources.column_kinds import Column
from batch_assets.sources.columns import ColumnScan
from batch_assets.storage import FileInfo

BATCH_RECORDS = 2048
BATCH_BYTES = 8 * 2**20
# An image that is still to be fetched counts as so many bytes: 128 of them are a batch.
FETCHED_BYTES = 64 * 2**10


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file as the planner saw it; `version` changes whenever its content does.

    `records` of it are planned, those before physical row `next_row` and byte `next_byte`;
    where a limit ended the plan inside the file, it is not `complete`.
    """

    path: str
    size: int
    version: str
    records: int
    next_row: int = 0
    next_byte: int = 0
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Segment:
    """A contiguous part of one source file; planning copies no data.

    `path` is relative to the source's URI (a single file: its name). Rows are 0-based and
    physical (a blank JSONL line counts); bytes are offsets into the file for JSONL. For formats
    read by row they run over the uncompressed content (of a tar: the tar) and only say how large the segment is.
    Both ends are half open. `records` counts what is no blank line. `spool` is the digest of the
    normalized copy to read instead (see `paths.spool`), or "".
    """

    path: str
    version: str
    first_row: int
    last_row: int
    first_byte: int
    last_byte: int
    records: int
    spool: str = ""


class Fault(NamedTuple):
    """Why one record cannot be embedded."""

    code: str
    message: str


@dataclass(frozen=True)
class Rejection:
    """A record that cannot be embedded as it is, and why."""

    ordinal: int
    record_id: str
    source_file: str
    source_row: int
    code: str
    message: str


@dataclass
class Records:
    """Consecutive records of one shard, in source order.

    The lists are of one length: the valid records. `columns` has the passed-through columns,
    in the plan's types, with as many rows. `rejections` are the bad records of the same
    stretch; together the two cover every ordinal of it exactly once.

    Of a source of images, `images` are the whole image files, or where each is to be fetched from
    (a path or URL), and `texts` their captions, "" where there is none. It is None of a source of
    texts, and where only the records' structure was asked for.
    """

    ordinals: list[int]
    record_ids: list[str]
    source_files: list[str]
    source_rows: list[int]
    texts: list[str]
    columns: pa.RecordBatch
    rejections: list[Rejection] = field(default_factory=list)
    images: list[bytes | str] | None = None

    def __len__(self) -> int:
        return len(self.ordinals)


@dataclass(frozen=True)
class RecordRules:
    """How rows of one shard become records: what its plan has fixed, and the pipeline's settings.

    `images`: records are images, and their texts captions, which may be missing. `contents`: image
    files are to be read, not only what stands beside them.
    """

    shard: str
    columns: tuple[Column, ...]
    longest: int  # bytes of a record, at most
    text_column: str | None = "text"
    text_template: str | None = None
    id_column: str | None = None
    images: bool = False
    contents: bool = True


@dataclass(frozen=True)
class Stretch:
    """Where consecutive records of one file lie; blank lines are left out.

    `rows` (n) are their physical rows, ascending, `ends` (n) the byte offsets behind each, `ids` (n) hashes of
    their ids as `record_ids.py` makes them, where the scan asks for those.
    """

    rows: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64] | None = None


class Source(Protocol):
    """Reads files of one format. A file that cannot be read as a whole raises SourceError."""

    def prepare(self, file: FileInfo, most: int | None) -> str:
        """Make the file's records reachable at random; returns the digest of the spool or "".

        Of a file that is spooled, `most` records will do.
        """
        ...

    def scan(
        self, file: FileInfo, spool: str, first_row: int, first_byte: int, columns: ColumnScan
    ) -> Iterator[Stretch]:
        """Find the records from (`first_row`, `first_byte`) on, and show their values to `columns`.

        Their ids come with them where `columns` has an `id_column`.
        """
        ...

    def split(self, segment: Segment, records: int) -> tuple[Segment, Segment]:
        """Cut a segment behind its first `records` records; both parts keep at least one."""
        ...

    def narrow(self, segment: Segment, rows: Collection[int]) -> list[Segment]:
        """Segments, in order, that hold these physical rows of `segment`, and as little else as is cheap."""
        ...

    def read(self, segment: Segment, rules: RecordRules, ordinal: int) -> Iterator[Records]:
        """The segment's records in batches; the first one gets `ordinal`.

        Raises SourceError where the file is no longer the planned version.
        """
        ...
