"""Files without random access, copied once to Parquet under the pipeline's root.

A spool has a row per record: `row` (its physical row in the file), `line` (its JSON line) and
`error` ("code: message", or null). What turns a file into such rows is given by the format:
compressed JSON Lines here, CSV in `delimited.py`.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from batch_assets.sources.base import (
    Fault,
    RecordRules,
    Records,
    Segment,
    Stretch,
)
from batch_assets.sources.columns import ColumnScan
from batch_assets.sources.files import decompressed
from batch_assets.sources.image_objects import ObjectImages, build_objects, images_of, most_records
from batch_assets.sources.images import ImageColumns
from batch_assets.sources.json_values import long_number_lines, parse_object, too_large
from batch_assets.sources.jsonl import cut, scan_lines
from batch_assets.sources.lines import line_blocks, lines_of
from batch_assets.sources.partitions import FileValues, Partitions, no_values
from batch_assets.sources.records import RecordBuilder
from batch_assets.sources.spool_files import (
    GROUP_BYTES,
    GROUP_ROWS,
    Spools,
    damaged_spool,
)
from batch_assets.storage import FileInfo, Storage

SpoolRow = tuple[int, bytes | Fault]
RowReader = Callable[[Iterator[bytes], str, int], Iterator[SpoolRow]]
"""(decompressed chunks, path, longest record in bytes) → physical row and JSON line of each record."""

_SCHEMA = pa.schema([("row", pa.int64()), ("line", pa.binary()), ("error", pa.string())])


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
    """Files under `storage`, read by way of their spools.

    `images` tells which column says where an image is, where records are images.
    """

    def __init__(
        self,
        storage: Storage,
        spools: Spools,
        format: str,
        reader: RowReader,
        longest: int,
        images: ImageColumns | None = None,
        partitions: Partitions = no_values,
    ) -> None:
        self._storage = storage
        self._spools = spools
        self._format = format
        self._reader = reader
        self._longest = longest
        self._images = images
        self._partitions = partitions

    def prepare(self, file: FileInfo, most: int | None) -> str:
        """Write the file's spool, unless it is there; its digest depends on all that decides its content."""
        parts = (self._storage.uri, file.path, file.version, self._format, str(self._longest), str(most))
        return self._spools.write(parts, _SCHEMA, self._rows(file, most))

    def _make_again(self, path: str, version: str, spool: str) -> bool:
        file = self._storage.info(path)
        if file is None or file.version != version:
            return False
        # Of all rows, however many were asked for then: nobody reads further than was planned.
        self._spools.fill(spool, _SCHEMA, self._rows(file, None))
        return True

    def _rows(self, file: FileInfo, most: int | None) -> Iterator[pa.RecordBatch]:
        chunks = decompressed(self._storage, file.path, file.size, file.version)
        yield from _batches(self._reader(chunks, file.path, self._longest), most)

    def scan(
        self, file: FileInfo, spool: str, first_row: int, first_byte: int, columns: ColumnScan
    ) -> Iterator[Stretch]:
        end, beside = 0, FileValues(self._partitions(file.path))
        for batch in self._read(file.path, file.version, spool, 0, None):
            lines = [line or b"" for line in batch.column("line").to_pylist()]
            rows = batch.column("row").to_numpy()
            ends = end + np.cumsum(np.fromiter((len(line) + 1 for line in lines), np.int64, len(lines)))
            end = int(ends[-1])
            new = int(np.searchsorted(rows, first_row))
            if new < len(rows):
                ids = scan_lines(lines[new:], b"\n".join(lines[new:]), self._longest, columns, beside)
                yield Stretch(rows[new:], ends[new:], ids)

    def split(self, segment: Segment, records: int) -> tuple[Segment, Segment]:
        byte, left = segment.first_byte, records
        for batch in self._read_segment(segment):
            head = batch.slice(0, left)
            byte += sum(len(line or b"") + 1 for line in head.column("line").to_pylist())
            left -= len(head)
            if left == 0:
                return cut(segment, records, head.column("row")[-1].as_py() + 1, byte)
        raise damaged_spool(segment.path, segment.spool)

    def narrow(self, segment: Segment, rows: Collection[int]) -> list[Segment]:
        return [replace(segment, first_row=row, last_row=row + 1, records=1) for row in sorted(rows)]

    def read(self, segment: Segment, rules: RecordRules, ordinal: int) -> Iterator[Records]:
        builder = RecordBuilder(rules, segment.path, ordinal, self._partitions(segment.path))
        images = images_of(self._images, self._storage, segment.path)
        most = most_records(images)
        for whole in self._read_segment(segment):
            yield from (
                self._built(builder, whole.slice(start, most), images) for start in range(0, len(whole), most)
            )

    def _built(self, builder: RecordBuilder, batch: pa.RecordBatch, images: ObjectImages | None) -> Records:
        lines = batch.column("line").to_pylist()
        careful = long_number_lines(b"\n".join(line or b"" for line in lines))
        objects: list[dict[str, Any] | Fault] = [
            parse_object(line, builder.rules.longest, careful) if error is None else _fault(error)
            for line, error in zip(lines, batch.column("error").to_pylist(), strict=True)
        ]
        return build_objects(builder, batch.column("row").to_pylist(), objects, images)

    def _read_segment(self, segment: Segment) -> Iterator[pa.RecordBatch]:
        rows = (segment.first_row, segment.last_row)
        return self._read(segment.path, segment.version, segment.spool, *rows)

    def _read(
        self, path: str, version: str, spool: str, first_row: int, last_row: int | None
    ) -> Iterator[pa.RecordBatch]:
        make_again = partial(self._make_again, path, version, spool)
        return self._spools.read(path, spool, first_row, last_row, make_again)


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
        if size >= GROUP_BYTES or len(numbers) == GROUP_ROWS:
            yield pa.RecordBatch.from_arrays([numbers, lines, errors], schema=_SCHEMA)
            numbers, lines, errors, size = [], [], [], 0
    if numbers:
        yield pa.RecordBatch.from_arrays([numbers, lines, errors], schema=_SCHEMA)


def _fault(error: str) -> Fault:
    code, _, message = error.partition(": ")
    return Fault(code, message)
