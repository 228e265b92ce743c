"""Files without random access, copied once to Parquet under the pipeline's root.

A spool has a row per record: `row` (its physical row in the file), `line` (its JSON line) and
`error` ("code: message", or null). What turns a file into such rows is given by the format:
compressed JSON Lines here, CSV in `delimited.py`.
"""

import hashlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets import paths
from batch_assets.errors import SourceError
from batch_assets.sources.base import (
    BATCH_RECORDS,
    Fault,
    RecordRules,
    Records,
    Segment,
    Stretch,
)
from batch_assets.sources.columns import ColumnScan
from batch_assets.sources.files import decompressed
from batch_assets.sources.json_values import long_number_lines, parse_object, too_large
from batch_assets.sources.jsonl import cut, scan_lines
from batch_assets.sources.lines import line_blocks, lines_of
from batch_assets.sources.records import RecordBuilder
from batch_assets.storage import FileInfo, Storage

SpoolRow = tuple[int, bytes | Fault]
RowReader = Callable[[Iterator[bytes], str, int], Iterator[SpoolRow]]
"""(decompressed chunks, path, longest record in bytes) → physical row and JSON line of each record."""

_SCHEMA = pa.schema([("row", pa.int64()), ("line", pa.binary()), ("error", pa.string())])
_GROUP_ROWS = 65_536
_GROUP_BYTES = 2 * 2**20


def json_line_rows(chunks: Iterator[bytes], path: str, longest: int) -> Iterator[SpoolRow]:
    """The rows of JSON Lines: the lines as they are."""
    row = 0
    for block in line_blocks(chunks, 0, longest):
        if block.overlong:
            if not block.blank:
                yield row, too_large(block.size, longest)
            row += 1
            continue
        for line in lines_of(block):
            if line and not line.isspace():
                yield row, line if len(line) <= longest else too_large(len(line), longest)
            row += 1


class SpooledSource:
    """Files under `storage`, read by way of their spools under `root`."""

    def __init__(self, storage: Storage, root: Storage, format: str, reader: RowReader, longest: int) -> None:
        self._storage = storage
        self._root = root
        self._format = format
        self._reader = reader
        self._longest = longest

    def prepare(self, file: FileInfo, most: int | None) -> str:
        """Write the file's spool, unless it is there; its digest depends on all that decides its content."""
        parts = (self._storage.uri, file.path, file.version, self._format, str(self._longest), str(most))
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
        path = paths.spool(digest)
        if self._root.info(path) is None:
            chunks = decompressed(self._storage, file.path, file.size, file.version)
            rows = self._reader(chunks, file.path, self._longest)
            with (
                self._root.open_output(path) as output,
                pq.ParquetWriter(output, _SCHEMA, compression="zstd", use_dictionary=False) as writer,
            ):
                for batch in _batches(rows, most):
                    writer.write_batch(batch, row_group_size=_GROUP_ROWS)
        return digest

    def scan(
        self, file: FileInfo, spool: str, first_row: int, first_byte: int, columns: ColumnScan
    ) -> Iterator[Stretch]:
        end = 0
        for batch in self._read(file.path, spool, 0, None):
            lines = [line or b"" for line in batch.column("line").to_pylist()]
            rows = batch.column("row").to_numpy()
            ends = end + np.cumsum(np.fromiter((len(line) + 1 for line in lines), np.int64, len(lines)))
            end = int(ends[-1])
            new = int(np.searchsorted(rows, first_row))
            if new < len(rows):
                scan_lines(lines[new:], b"\n".join(lines[new:]), self._longest, columns)
                yield Stretch(rows[new:], ends[new:])

    def split(self, segment: Segment, records: int) -> tuple[Segment, Segment]:
        byte, left = segment.first_byte, records
        for batch in self._read(segment.path, segment.spool, segment.first_row, segment.last_row):
            head = batch.slice(0, left)
            byte += sum(len(line or b"") + 1 for line in head.column("line").to_pylist())
            left -= len(head)
            if left == 0:
                return cut(segment, records, head.column("row")[-1].as_py() + 1, byte)
        raise SourceError(
            f"{segment.path}: its spool is not whole; delete {paths.spool(segment.spool)} and plan again"
        )

    def read(self, segment: Segment, rules: RecordRules, ordinal: int) -> Iterator[Records]:
        builder = RecordBuilder(rules, segment.path, ordinal)
        for batch in self._read(segment.path, segment.spool, segment.first_row, segment.last_row):
            lines = batch.column("line").to_pylist()
            careful = long_number_lines(b"\n".join(line or b"" for line in lines))
            objects: list[dict[str, Any] | Fault] = [
                parse_object(line, rules.longest, careful) if error is None else _fault(error)
                for line, error in zip(lines, batch.column("error").to_pylist(), strict=True)
            ]
            yield builder.from_objects(batch.column("row").to_pylist(), objects)

    def _read(self, path: str, spool: str, first_row: int, last_row: int | None) -> Iterator[pa.RecordBatch]:
        """The spool's rows of a range of physical rows, in batches that are not empty."""
        try:
            file = self._root.open_input(paths.spool(spool))
        except FileNotFoundError:
            raise SourceError(
                f"{path}: its normalized copy {self._root.uri}/{paths.spool(spool)} is missing; put it back, "
                "or `plan --replace` plans the file anew"
            ) from None
        with file, pq.ParquetFile(file, pre_buffer=False, buffer_size=2**20) as parquet:
            metadata = parquet.metadata
            for group in range(metadata.num_row_groups):
                statistics = metadata.row_group(group).column(0).statistics
                if statistics.max < first_row or (last_row is not None and statistics.min >= last_row):
                    continue
                for batch in parquet.iter_batches(BATCH_RECORDS, row_groups=[group], use_threads=False):
                    rows = batch.column("row").to_numpy()
                    start = int(np.searchsorted(rows, first_row))
                    end = len(rows) if last_row is None else int(np.searchsorted(rows, last_row))
                    if end > start:
                        yield batch.slice(start, end - start)


def _batches(rows: Iterator[SpoolRow], most: int | None) -> Iterator[pa.RecordBatch]:
    """Row groups of about 2 MiB, `most` rows in all."""
    numbers: list[int] = []
    lines: list[bytes | None] = []
    errors: list[str | None] = []
    size = 0
    for number, line in islice(rows, most):
        numbers.append(number)
        if isinstance(line, Fault):
            lines.append(None)
            errors.append(f"{line.code}: {line.message}")
        else:
            lines.append(line)
            errors.append(None)
            size += len(line)
        if size >= _GROUP_BYTES or len(numbers) == _GROUP_ROWS:
            yield pa.RecordBatch.from_arrays([numbers, lines, errors], schema=_SCHEMA)
            numbers, lines, errors, size = [], [], [], 0
    if numbers:
        yield pa.RecordBatch.from_arrays([numbers, lines, errors], schema=_SCHEMA)


def _fault(error: str) -> Fault:
    code, _, message = error.partition(": ")
    return Fault(code, message)
