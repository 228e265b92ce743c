"""JSON Lines read where they lie: any line can be reached by its byte offset."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import orjson

from batch_assets.errors import SourceError
from batch_assets.sources.base import (
    BATCH_BYTES,
    BATCH_RECORDS,
    RecordRules,
    Records,
    Segment,
    Stretch,
)
from batch_assets.sources.columns import ColumnScan
from batch_assets.sources.files import open_stream
from batch_assets.sources.json_values import long_number_lines, parse_object, too_large
from batch_assets.sources.lines import find_records, line_blocks, lines_of
from batch_assets.sources.partitions import FileValues, Partitions, no_values
from batch_assets.sources.records import RecordBuilder
from batch_assets.storage import FileInfo, Storage

_SCAN_LINES = 4096  # parsed at once: all of a block's objects would take many times its size


class JsonLinesSource:
    """Uncompressed JSON Lines files under `storage`. A line over `longest` bytes is not looked into."""

    def __init__(self, storage: Storage, longest: int, partitions: Partitions = no_values) -> None:
        self._storage = storage
        self._longest = longest
        self._partitions = partitions

    def prepare(self, file: FileInfo, most: int | None) -> str:
        return ""

    def scan(
        self, file: FileInfo, spool: str, first_row: int, first_byte: int, columns: ColumnScan
    ) -> Iterator[Stretch]:
        chunks = open_stream(self._storage, file.path, first_byte, file.size, file.version)
        row, beside = first_row, FileValues(self._partitions(file.path))
        for block in line_blocks(chunks, first_byte, self._longest):
            if not block.overlong:
                scan_lines(lines_of(block), block.data, self._longest, columns, beside)
            count, numbers, ends = find_records(block)
            if len(numbers):
                yield Stretch(numbers + row, ends)
            row += count

    def split(self, segment: Segment, records: int) -> tuple[Segment, Segment]:
        row, left = segment.first_row, records
        for block in line_blocks(self._chunks(segment), segment.first_byte, self._longest):
            count, numbers, ends = find_records(block)
            if len(numbers) >= left:
                end_row, end_byte = int(numbers[left - 1]) + row + 1, int(ends[left - 1])
                return cut(segment, records, end_row, end_byte)
            left -= len(numbers)
            row += count
        raise SourceError(
            f"{segment.path}: has fewer records than were just counted; is it being written? Plan again"
        )

    def narrow(self, segment: Segment, rows: Collection[int]) -> list[Segment]:
        return [segment]  # only its ends are known as bytes

    def _chunks(self, segment: Segment) -> Iterator[bytes]:
        return open_stream(
            self._storage, segment.path, segment.first_byte, segment.last_byte, segment.version
        )

    def read(self, segment: Segment, rules: RecordRules, ordinal: int) -> Iterator[Records]:
        builder = RecordBuilder(rules, segment.path, ordinal, self._partitions(segment.path))
        row = segment.first_row
        for block in line_blocks(self._chunks(segment), segment.first_byte, rules.longest):
            if block.overlong:
                if not block.blank:
                    yield builder.from_objects([row], [too_large(block.size, rules.longest)])
                row += 1
                continue
            careful = long_number_lines(block.data)
            rows: list[int] = []
            lines: list[bytes] = []
            size = 0
            for line in lines_of(block):
                if not line or line.isspace():
                    row += 1
                    continue
                if lines and (len(lines) == BATCH_RECORDS or size + len(line) > BATCH_BYTES):
                    yield _build(builder, rows, lines, careful)
                    rows, lines, size = [], [], 0
                rows.append(row)
                lines.append(line)
                size += len(line)
                row += 1
            if lines:
                yield _build(builder, rows, lines, careful)


def _build(builder: RecordBuilder, rows: list[int], lines: list[bytes], careful: set[bytes]) -> Records:
    longest = builder.rules.longest
    return builder.from_objects(rows, [parse_object(line, longest, careful) for line in lines])


def scan_lines(
    lines: Sequence[bytes], data: bytes, longest: int, columns: ColumnScan, beside: FileValues | None = None
) -> None:
    """Show the JSON objects among `lines`, which make up `data`, to `columns`, with what stands beside their file."""
    if columns.finished:
        return
    careful = long_number_lines(data)
    for start in range(0, len(lines), _SCAN_LINES):
        part = lines[start : start + _SCAN_LINES]
        try:
            if max(map(len, part)) > longest or (careful and not careful.isdisjoint(part)):
                raise ValueError
            values = [orjson.loads(line) for line in part if line]
        except ValueError:  # some line needs care, or is no JSON
            values = [parse_object(line, longest, careful) for line in part]
        objects = [value for value in values if type(value) is dict]
        if beside is None:
            columns.add_objects(objects)
        else:
            beside.show(objects, columns)


def cut(segment: Segment, records: int, row: int, byte: int) -> tuple[Segment, Segment]:
    """Cut a segment before physical row `row`, at byte `byte`, behind its first `records` records."""
    return (
        replace(segment, last_row=row, last_byte=byte, records=records),
        replace(segment, first_row=row, first_byte=byte, records=segment.records - records),
    )
