"""JSON Lines read where they lie: any line can be reached by its byte offset."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import orjson

from batch_assets.errors import SourceError
from batch_assets.sources.base import (
    BATCH_BYTES,
    RecordRules,
    Records,
    Segment,
    Stretch,
)
from batch_assets.sources.columns import ColumnScan
from batch_assets.sources.files import open_stream
from batch_assets.sources.image_objects import ObjectImages, build_objects, images_of, most_records
from batch_assets.sources.images import ImageColumns
from batch_assets.sources.json_values import long_number_lines, parse_object, too_large
from batch_assets.sources.lines import find_records, line_blocks, lines_of
from batch_assets.sources.partitions import FileValues, Partitions, no_values
from batch_assets.sources.record_ids import REJECTED, Hashes, id_hashes
from batch_assets.sources.records import RecordBuilder, id_of
from batch_assets.storage import FileInfo, Storage

_SCAN_LINES = 4096  # parsed at once: all of a block's objects would take many times its size


class JsonLinesSource:
    """Uncompressed JSON Lines files under `storage`. A line over `longest` bytes is not looked into.

    `images` tells which column says where an image is, where records are images; `partitions` are the values
    that stand beside a file.
    """

    def __init__(
        self,
        storage: Storage,
        longest: int,
        images: ImageColumns | None = None,
        partitions: Partitions = no_values,
    ) -> None:
        self._storage = storage
        self._longest = longest
        self._images = images
        self._partitions = partitions

    def prepare(self, file: FileInfo, most: int | None) -> str:
        return ""

    def scan(
        self, file: FileInfo, spool: str, first_row: int, first_byte: int, columns: ColumnScan
    ) -> Iterator[Stretch]:
        chunks = open_stream(self._storage, file.path, first_byte, file.size, file.version)
        row, beside = first_row, FileValues(self._partitions(file.path))
        for block in line_blocks(chunks, first_byte, self._longest):
            lines = lines_of(block) if not block.overlong else [b""]
            ids = scan_lines(lines, block.data, self._longest, columns, beside)
            count, numbers, ends = find_records(block)
            if len(numbers):
                yield Stretch(numbers + row, ends, None if ids is None else ids[numbers])
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
        images = images_of(self._images, self._storage, segment.path)
        most = most_records(images)
        row = segment.first_row
        for block in line_blocks(self._chunks(segment), segment.first_byte, rules.longest):
            if block.overlong:
                if not block.blank:
                    yield build_objects(builder, [row], [too_large(block.size, rules.longest)], images)
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
                if lines and (len(lines) == most or size + len(line) > BATCH_BYTES):
                    yield _build(builder, rows, lines, careful, images)
                    rows, lines, size = [], [], 0
                rows.append(row)
                lines.append(line)
                size += len(line)
                row += 1
            if lines:
                yield _build(builder, rows, lines, careful, images)


def _build(
    builder: RecordBuilder,
    rows: list[int],
    lines: list[bytes],
    careful: set[bytes],
    images: ObjectImages | None,
) -> Records:
    longest = builder.rules.longest
    return build_objects(builder, rows, [parse_object(line, longest, careful) for line in lines], images)


class ObjectScan(Protocol):
    """What looks at parsed records: a ColumnScan, or what stands before one."""

    @property
    def finished(self) -> bool: ...
    @property
    def id_column(self) -> str | None: ...
    def add_objects(self, objects: Iterable[Mapping[str, Any]]) -> None: ...


def scan_lines(
    lines: Sequence[bytes], data: bytes, longest: int, columns: ObjectScan, beside: FileValues | None = None
) -> Hashes | None:
    """Show the JSON objects among `lines`, which make up `data`, to `columns`, with what stands beside their file.

    Returns the lines' ids (n), where `columns` has an `id_column`.
    """
    if columns.finished and columns.id_column is None:
        return None
    careful = long_number_lines(data)
    ids = None if columns.id_column is None else np.full(len(lines), REJECTED, np.int64)
    places = [place for place, line in enumerate(lines) if line and not line.isspace()]
    for start in range(0, len(places), _SCAN_LINES):
        some = places[start : start + _SCAN_LINES]
        part = [lines[place] for place in some]
        try:
            if max(map(len, part)) > longest or (careful and not careful.isdisjoint(part)):
                raise ValueError
            values = [orjson.loads(line) for line in part]
        except ValueError:  # some line needs care, or is no JSON
            values = [parse_object(line, longest, careful) for line in part]
        objects = [value for value in values if type(value) is dict]
        if beside is not None and isinstance(columns, ColumnScan):
            beside.show(objects, columns)
        else:
            columns.add_objects(objects)
        if ids is not None and columns.id_column is not None:
            merged = (beside.merged(one) if beside and type(one) is dict else one for one in values)
            ids[some] = id_hashes(id_of(value, columns.id_column) for value in merged)
    return ids


def cut(segment: Segment, records: int, row: int, byte: int) -> tuple[Segment, Segment]:
    """Cut a segment before physical row `row`, at byte `byte`, behind its first `records` records."""
    return (
        replace(segment, last_row=row, last_byte=byte, records=records),
        replace(segment, first_row=row, first_byte=byte, records=segment.records - records),
    )
