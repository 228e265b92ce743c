"""Row groups of a Parquet file: which of them a segment overlaps, how large they are, their rows in batches."""

from collections.abc import Collection, Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.sources.base import BATCH_BYTES, Segment


def batches(
    parquet: pq.ParquetFile, segment: Segment, columns: list[str], unread: frozenset[str], most: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The segment's rows in bounded batches of at most `most`, each with its first physical row."""
    for group, start, end in _overlapped(parquet.metadata, segment):
        average = max(bytes_of(parquet.metadata.row_group(group), unread) // (end - start), 1)
        size = max(1, min(most, BATCH_BYTES // average))
        row = start
        for batch in parquet.iter_batches(size, row_groups=[group], columns=columns, use_threads=False):
            first, last = max(segment.first_row - row, 0), min(segment.last_row - row, len(batch))
            if last > first:
                yield row + first, batch.slice(first, last - first)
            row += len(batch)
            if row >= segment.last_row:
                break


def narrow(metadata: pq.FileMetaData, segment: Segment, rows: Collection[int]) -> list[Segment]:
    """Parts of the segment that hold `rows`, one for each row group: a group is read from its beginning."""
    found: list[Segment] = []
    for _, start, end in _overlapped(metadata, segment):
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


def _overlapped(metadata: pq.FileMetaData, segment: Segment) -> Iterator[tuple[int, int, int]]:
    """Number, first row and end of each row group that has rows of the segment."""
    start = 0
    for group in range(metadata.num_row_groups):
        end = start + metadata.row_group(group).num_rows
        if end > max(start, segment.first_row) and start < segment.last_row:
            yield group, start, end
        start = end
