"""What every source reads and yields: files, segments of files, and batches of records.

One implementation per format stands beside this file; the way from a format's name to its
class is `registry.py`. How a source is cut into shards belongs to `sharding/`.
"""

from dataclasses import dataclass, field

import pyarrow as pa


@dataclass(frozen=True)
class SourceFile:
    """A file as the planner saw it; `version` changes whenever its content does."""

    path: str
    size: int
    version: str
    records: int


@dataclass(frozen=True)
class Segment:
    """A contiguous part of one source file; planning copies no data.

    `path` is relative to the source's URI (a single file: its name). Rows are 0-based and
    physical (a blank JSONL line counts); bytes are offsets into the file for JSONL and 0 for
    formats read by row. Both ends are half open. `records` counts what is no blank line.
    `spool` is the digest of the normalized copy to read instead (see `paths.spool`), or "".
    """

    path: str
    version: str
    first_row: int
    last_row: int
    first_byte: int
    last_byte: int
    records: int
    spool: str = ""


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
    """

    ordinals: list[int]
    record_ids: list[str]
    source_files: list[str]
    source_rows: list[int]
    texts: list[str]
    columns: pa.RecordBatch
    rejections: list[Rejection] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ordinals)
