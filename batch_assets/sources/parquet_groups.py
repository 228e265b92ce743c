"""Row groups of a Parquet file: which of them a segment overlaps, and how large they are."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.sources.base import Segment, Stretch

_STRETCH_ROWS = 65_536


def check_rows(metadata: pq.FileMetaData) -> None:
    """Raise pa.ArrowInvalid where the footer contradicts itself on the number of rows."""
    leaves = range(metadata.num_columns)
    flat = [place for place in leaves if metadata.schema.column(place).max_repetition_level == 0]
    rows = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        rows += group.num_rows
        for place in flat:
            values = group.column(place).num_values  # nulls among them
            if values != group.num_rows:
                raise pa.ArrowInvalid(
                    f"by the footer, row group {number} has {group.num_rows:,} rows, "
                    f"and {values:,} values in column {metadata.schema.column(place).path!r}"
                )
    if rows != metadata.num_rows:
        raise pa.ArrowInvalid(
            f"by the footer, there are {metadata.num_rows:,} rows, {rows:,} in its row groups"
        )


def narrow(metadata: pq.FileMetaData, segment: Segment, rows: Collection[int]) -> list[Segment]:
    """Parts of the segment that hold `rows`, one for each row group: a group is read from its beginning."""
    found: list[Segment] = []
    for _, start, end in overlapped(metadata, segment.first_row, segment.last_row):
        inside = [row for row in rows if start <= row < end]
        if inside:
            first, last = min(inside), max(inside) + 1
            found.append(replace(segment, first_row=first, last_row=last, records=last - first))
    return found


def bytes_of(group: pq.RowGroupMetaData, unread: frozenset[str]) -> int:
    """Uncompressed bytes of a row group without the columns in `unread`."""
    left_out = [
        column.total_uncompressed_size
        for column in map(group.column, range(group.num_columns) if unread else ())
        if column.path_in_schema.split(".")[0] in unread
    ]
    return group.total_byte_size - sum(left_out)


def overlapped(metadata: pq.FileMetaData, first_row: int, last_row: int) -> Iterator[tuple[int, int, int]]:
    """Number, first row and end of each row group that has rows of this range."""
    start = 0
    for group in range(metadata.num_row_groups):
        end = start + metadata.row_group(group).num_rows
        if end > max(start, first_row) and start < last_row:
            yield group, start, end
        start = end


def stretches(groups: Sequence[tuple[int, int]], first_row: int) -> Iterator[Stretch]:
    """Where the rows from `first_row` on lie, in groups of (rows, bytes)."""
    row = byte = 0
    for count, size in groups:
        for start in range(0, count, _STRETCH_ROWS):
            numbers = np.arange(start, min(start + _STRETCH_ROWS, count), dtype=np.int64)
            new = numbers[max(first_row - row - start, 0) :]
            if len(new):
                # A group's bytes, shared out evenly; never fewer than one to a row.
                yield Stretch(new + row, byte + (new + 1) * max(size, count) // count)
        row, byte = row + count, byte + max(size, count)
