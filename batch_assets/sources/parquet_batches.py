"""Rows of a Parquet file in batches, bounded by what they decode to.

A file's own figures do not tell that: a dictionary, a run length or a shared prefix makes gigabytes
of a few kilobytes. So few rows are read at first, and the number of the next ones follows what the
rows before have taken.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.sources.base import BATCH_BYTES
from batch_assets.sources.decoded import batch_bytes, longest_value, parts
from batch_assets.sources.parquet_columns import columns_marked, with_text_of_intervals
from batch_assets.sources.parquet_groups import overlapped

Reopen = Callable[[Sequence[str]], pq.ParquetFile]
"""Opens the same file once more, with these leaf columns left in their dictionaries."""

# Arrow's own limits: 2 GiB of text in an array, memory, and nested columns that only several arrays could hold, for
# which it has no code. They say nothing about the file: fewer rows at once may do.
ARROW_LIMITS = (pa.ArrowCapacityError, pa.ArrowMemoryError, pa.ArrowNotImplementedError)

_FIRST_ROWS = 16
_GROWTH = 8
_TEXT_RATIO = 10  # most text compresses less
_LONG_BYTES = 32 * 2**10  # 64 MiB, where each row of a batch has such a value
_VALUE_BYTES = 8
_MOST_ROWS = 2**31 - 1  # no limit of its own
_LARGE_BYTES = 64 * 2**20
_CAREFUL_ROWS = 64  # at most, where long values may follow short ones: as much as 64 of the long ones
_LIST_RATIO = 32  # lists of numbers that are not made to be small seldom take less of what they decode to


class _Pace:
    """How many rows to read next: as many as are likely to fill half a batch."""

    def __init__(self, most: int) -> None:
        self._limit = self._most = most
        self.rows = min(_FIRST_ROWS, most)

    def enter(self, rows: int, encoded: int, most: int) -> None:
        """The next ones are of a group of `rows`, which decode to `encoded` bytes or more; at most `most` at once."""
        limit = min(self._limit, most)
        self._most = max(1, min(limit, BATCH_BYTES * rows // max(encoded, 1)))
        self.rows = min(self.rows, self._most)

    def follow(self, rows: int, size: int) -> None:
        """Take note of `rows` that took `size` bytes."""
        fitting = BATCH_BYTES // 2 * rows // max(size, 1)
        self.rows = max(1, min(self.rows * _GROWTH, self._most, fitting))

    def slow_down(self) -> None:
        """So many rows at once cannot be decoded."""
        self.rows = self._most = max(1, self.rows // _GROWTH)


def batches(
    parquet: pq.ParquetFile,
    reopen: Reopen,
    columns: list[str],
    most: int,
    first_row: int,
    last_row: int,
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The file's rows from `first_row` to before `last_row`, in batches of at most `most`, each with its first row.

    A batch takes at most BATCH_BYTES decoded, or is a single row. Intervals come as text. Raises
    pa.ArrowException where the file is damaged, one of ARROW_LIMITS where Arrow cannot decode even one of its rows.
    """
    pace = _Pace(most)
    intervals = columns_marked(parquet.metadata, "INTERVAL").intersection(columns)
    for group, start, end in overlapped(parquet.metadata, first_row, last_row):
        row, last = max(start, first_row), min(end, last_row)
        if not columns:
            yield from _nothing(parquet, group, row, last, most)
            continue
        leaves = _leaves(parquet.metadata.row_group(group), columns)
        careful = min((_rows_at_once(leaf, columns) for leaf in leaves), default=most)
        pace.enter(end - start, sum(map(_least_bytes, leaves)), careful)
        pieces = _pieces(parquet, reopen, group, columns, pace, row - start, last - start)
        for batch in _joined(pieces, most):
            yield row, with_text_of_intervals(batch, intervals)
            row += len(batch)
        if row < last:
            raise pa.ArrowInvalid(
                f"row group {group} ends before row {row:,}; by the footer, before row {end:,}"
            )


def _nothing(
    parquet: pq.ParquetFile, group: int, row: int, last: int, most: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    for batch in parquet.iter_batches(most, row_groups=[group], columns=[]):
        taken = batch.slice(0, last - row)
        if len(taken):
            yield row, taken
        row += len(taken)


def _pieces(
    parquet: pq.ParquetFile,
    reopen: Reopen,
    group: int,
    columns: list[str],
    pace: _Pace,
    first: int,
    last: int,
) -> Iterator[tuple[pa.RecordBatch, int]]:
    """The group's rows from `first` to before `last`, in bounded pieces, each with its decoded bytes.

    Where Arrow cannot decode so many rows at once, the group is read anew, fewer at once.
    """
    left = _left_in_dictionaries(parquet, reopen, group, columns)
    with reopen(left) if left else contextlib.nullcontext(parquet) as file:
        while first < last:
            try:
                for start, batch, size in _reads(file, group, columns, pace):
                    taken = batch.slice(max(first - start, 0), last - max(first, start))
                    if len(taken):
                        whole = len(taken) == len(batch)
                        yield from parts(taken, size if whole else batch_bytes(taken), BATCH_BYTES)
                        first = max(first, start) + len(taken)
                    if first >= last:
                        break
                return
            except ARROW_LIMITS:
                if pace.rows == 1:
                    raise
                pace.slow_down()


def _reads(
    file: pq.ParquetFile, group: int, columns: list[str], pace: _Pace
) -> Iterator[tuple[int, pa.RecordBatch, int]]:
    """The group's batches as Arrow decodes them: first row in the group, rows, decoded bytes."""
    row = 0
    for batch in file.iter_batches(pace.rows, row_groups=[group], columns=columns, use_threads=False):
        size = batch_bytes(batch)
        yield row, batch, size
        row += len(batch)
        pace.follow(len(batch), size)
        file.reader.set_batch_size(pace.rows)  # Arrow asks for it before each batch


def _leaves(group: pq.RowGroupMetaData, columns: list[str]) -> list[pq.ColumnChunkMetaData]:
    """What the footer says of the leaves of these columns in a row group."""
    leaves, wanted = map(group.column, range(group.num_columns)), set(columns)
    return [
        leaf
        for leaf in leaves
        if leaf.path_in_schema in wanted or leaf.path_in_schema.split(".")[0] in wanted
    ]


def _least_bytes(leaf: pq.ColumnChunkMetaData) -> int:
    """What a leaf decodes to, or less."""
    return max(leaf.total_uncompressed_size, leaf.num_values * _VALUE_BYTES)


def _rows_at_once(leaf: pq.ColumnChunkMetaData, columns: list[str]) -> int:
    """How many rows are safe to decode where short values may be followed by as many long ones as fill the memory.

    Run lengths, shared prefixes and good compression make those small in the file.
    """
    size = leaf.total_uncompressed_size
    if leaf.path_in_schema not in columns:  # nested: a single row may hold any number of values
        decoded = leaf.num_values * _VALUE_BYTES
        if decoded > max(_LARGE_BYTES, _LIST_RATIO * size):
            return 1
    if leaf.physical_type == "BYTE_ARRAY":
        packed = size > _LARGE_BYTES and size > _TEXT_RATIO * leaf.total_compressed_size
        if packed or "DELTA_BYTE_ARRAY" in leaf.encodings:
            return _CAREFUL_ROWS
    return _MOST_ROWS


def _left_in_dictionaries(
    parquet: pq.ParquetFile, reopen: Reopen, group: int, columns: list[str]
) -> list[str]:
    """Paths of the leaves of `columns` that are not to be decoded before it is known how large they become.

    Nested text: one row may repeat a value at will. Flat text where the dictionary has long values.
    """
    leaves = [
        leaf
        for leaf in _leaves(parquet.metadata.row_group(group), columns)
        if leaf.has_dictionary_page and leaf.physical_type == "BYTE_ARRAY"
    ]
    wanted = set(columns)
    nested = [leaf.path_in_schema for leaf in leaves if leaf.path_in_schema not in wanted]
    flat = [
        leaf.path_in_schema
        for leaf in leaves
        if leaf.path_in_schema in wanted and leaf.total_uncompressed_size > _LONG_BYTES
    ]
    if not flat:
        return nested
    with reopen(flat) as file:
        for first in file.iter_batches(1, row_groups=[group], columns=flat, use_threads=False):
            return nested + [path for path in flat if longest_value(first.column(path)) > _LONG_BYTES]
    return nested


def _joined(pieces: Iterator[tuple[pa.RecordBatch, int]], most: int) -> Iterator[pa.RecordBatch]:
    """The same rows in fewer batches: neighbours are put together, up to `most` rows and BATCH_BYTES."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for piece, piece_bytes in pieces:
        full = rows + len(piece) > most or size + piece_bytes > BATCH_BYTES
        if waiting and (full or piece.schema != waiting[0].schema):
            yield _together(waiting)
            waiting, rows, size = [], 0, 0
        waiting.append(piece)
        rows, size = rows + len(piece), size + piece_bytes
    if waiting:
        yield _together(waiting)


def _together(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)
