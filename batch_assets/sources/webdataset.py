"""Tar files of images (webdataset): spooled once without the images, which are read by byte ranges.

A row of the spool is a sample: its number in the tar, its metadata as a JSON line, where its image
lies, and where it ends. How members become samples is in `samples.py`.
"""

import tarfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa

from batch_assets.sources.base import BATCH_BYTES, Fault, RecordRules, Records, Segment, Stretch
from batch_assets.sources.columns import ColumnScan
from batch_assets.sources.companion import Companion
from batch_assets.sources.files import broken, explained, open_stream, touched
from batch_assets.sources.image_metadata import ImageScan, tell_incomplete
from batch_assets.sources.images import (
    ERROR_MESSAGE,
    STATUS,
    download_fault,
    empty_image,
    image_too_large,
)
from batch_assets.sources.json_values import long_number_lines, parse_object
from batch_assets.sources.jsonl import cut, scan_lines
from batch_assets.sources.records import RecordBuilder
from batch_assets.sources.samples import Sample, image_of, metadata_of, samples
from batch_assets.sources.spool_files import GROUP_BYTES, Spools, damaged_spool, spool_digest
from batch_assets.sources.tar_files import TarMember, open_blocks, tar_members
from batch_assets.storage import FileInfo, Storage, is_local, join_uri
from batch_assets.storage.threads import map_in_order

_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("line", pa.binary()),
        ("error", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("end", pa.int64()),
    ]
)
_GROUP_SAMPLES = 8_192
_GAP_BYTES = 256 * 2**10  # what may be read in vain, to save a request
_REMOTE_THREADS = 4


class WebDatasetSource:
    """Tar files under `storage`, by way of their spools. No file in a tar over `longest` bytes is read.

    Of several images in a sample, `image` is the extension of the one that is meant, as `left.jpg`.
    """

    def __init__(self, storage: Storage, spools: Spools, longest: int, image: str | None = None) -> None:
        self._storage = storage
        self._spools = spools
        self._longest = longest
        self._image = None if image is None else image.lower().removeprefix(".")

    def prepare(self, file: FileInfo, most: int | None) -> str:
        """Write the file's spool, unless it is there; its digest depends on all that decides its content."""
        companion = Companion(self._storage, file.path)
        parts = self._parts(file, companion, most)
        return self._spools.write(parts, _SCHEMA, self._rows(file, companion, most))

    def _parts(self, file: FileInfo, companion: Companion, most: int | None) -> tuple[str, ...]:
        return (
            self._storage.uri, file.path, file.version, "webdataset", str(self._longest), str(most),
            companion.version, *(() if self._image is None else (self._image,)),
        )  # fmt: skip

    def _read(self, path: str, spool: str, first_row: int, last_row: int | None) -> Iterator[pa.RecordBatch]:
        return self._spools.read(path, spool, first_row, last_row, partial(self._make_again, path, spool))

    def _make_again(self, path: str, spool: str) -> bool:
        file = self._storage.info(path)
        if file is None or spool_digest(self._parts(file, Companion(self._storage, path), None)) != spool:
            return False
        self.prepare(file, None)
        return True

    def _rows(
        self, file: FileInfo, companion: Callable[[str], Mapping[str, Any] | None], most: int | None
    ) -> Iterator[pa.RecordBatch]:
        try:
            with open_blocks(self._storage, file) as reader:

                def read(member: TarMember) -> bytes:
                    reader.seek(member.offset)
                    return reader.read(member.size)

                found = samples(tar_members(reader, file.size), read, self._longest)
                yield from self._batches(islice(found, most), companion, file.path)
        except tarfile.TarError as error:
            raise broken(self._storage, file.path, "tar", error) from error

    def _batches(
        self, found: Iterator[Sample], companion: Callable[[str], Mapping[str, Any] | None], path: str
    ) -> Iterator[pa.RecordBatch]:
        """Samples as rows of the spool, in groups of some 2 MiB; says once how many of them have lost columns."""
        columns: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
        size = incomplete = 0
        example = ""
        for number, sample in enumerate(found):
            line, lost = metadata_of(sample, companion, self._longest)
            image = image_of(sample, self._image)
            if lost:
                incomplete, example = incomplete + 1, example or f"{sample.key}: {lost[0]}"
            member = None if isinstance(image, Fault) else image
            error = f"{image.code}: {image.message}" if isinstance(image, Fault) else None
            values = {
                "row": number,
                "line": line,
                "error": error,
                "offset": None if member is None else member.offset,
                "size": None if member is None else member.size,
                "end": sample.end,
            }
            for name, value in values.items():
                columns[name].append(value)
            size += len(error or "") + len(line)
            if size >= GROUP_BYTES or len(columns["row"]) == _GROUP_SAMPLES:
                yield pa.RecordBatch.from_pydict(columns, schema=_SCHEMA)
                columns, size = {name: [] for name in _SCHEMA.names}, 0
        if columns["row"]:
            yield pa.RecordBatch.from_pydict(columns, schema=_SCHEMA)
        if incomplete:
            tell_incomplete(join_uri(self._storage.uri, path), incomplete, example)

    def scan(
        self, file: FileInfo, spool: str, first_row: int, first_byte: int, columns: ColumnScan
    ) -> Iterator[Stretch]:
        for batch in self._read(file.path, spool, first_row, None):
            lines = [line or b"" for line in batch.column("line").to_pylist()]
            ids = scan_lines(lines, b"\n".join(lines), self._longest, ImageScan(columns))
            yield Stretch(batch.column("row").to_numpy(), batch.column("end").to_numpy(), ids)

    def split(self, segment: Segment, records: int) -> tuple[Segment, Segment]:
        row = segment.first_row + records
        for batch in self._read(segment.path, segment.spool, row - 1, row):
            return cut(segment, records, row, batch.column("end")[0].as_py())
        raise damaged_spool(segment.path, segment.spool)

    def narrow(self, segment: Segment, rows: Collection[int]) -> list[Segment]:
        return [replace(segment, first_row=row, last_row=row + 1, records=1) for row in sorted(rows)]

    def read(self, segment: Segment, rules: RecordRules, ordinal: int) -> Iterator[Records]:
        builder = RecordBuilder(rules, segment.path, ordinal)
        with explained(self._storage, segment.path):
            info = self._storage.info(segment.path)
            if info is None:
                raise FileNotFoundError(segment.path)
            if info.version != segment.version:
                raise touched(self._storage, segment.path)
        if not rules.contents:
            for batch in self._spooled(segment):
                yield _records(builder, batch, None)
            return
        runs = (run for batch in self._spooled(segment) for run in _runs(batch, rules.longest))

        def fetch(run: _Run) -> tuple[_Run, bytes]:
            chunks = open_stream(self._storage, segment.path, run.start, run.end, segment.version)
            return run, b"".join(chunks) if run.end > run.start else b""

        # A store answers each request late: some are on their way at once.
        local = is_local(self._storage.uri)
        for run, data in map(fetch, runs) if local else map_in_order(fetch, runs, _REMOTE_THREADS):
            yield _records(builder, run.rows, [_slice(data, row, run) for row in run.rows])

    def _spooled(self, segment: Segment) -> Iterator[list["_Row"]]:
        batches = self._read(segment.path, segment.spool, segment.first_row, segment.last_row)
        for batch in batches:
            columns = (batch.column(name).to_pylist() for name in _Row._fields)
            yield [_Row(*values) for values in zip(*columns, strict=True)]


class _Row(NamedTuple):
    """A sample as the spool has it; without an image there is no offset."""

    row: int
    line: bytes | None
    error: str | None
    offset: int | None
    size: int | None


@dataclass
class _Run:
    """Neighbouring samples, and the bytes of the tar that hold their images."""

    rows: list[_Row]
    start: int = 0
    end: int = 0


def _runs(rows: list[_Row], longest: int) -> Iterator[_Run]:
    """Cut into runs whose images one request can fetch. Images over `longest` bytes are not fetched."""
    run = _Run([])
    for row in rows:
        if row.offset is not None and row.size is not None and row.size <= longest:
            end = row.offset + row.size
            if run.end and (end - run.start > BATCH_BYTES or row.offset - run.end > _GAP_BYTES):
                yield run
                run = _Run([])
            run.start, run.end = (run.start if run.end else row.offset), max(run.end, end)
        run.rows.append(row)
    yield run


def _slice(data: bytes, row: _Row, run: _Run) -> bytes | None:
    if row.offset is None or row.size is None or not run.start <= row.offset < run.end:
        return None
    return data[row.offset - run.start : row.offset - run.start + row.size]


def _records(builder: RecordBuilder, rows: list[_Row], images: list[bytes | None] | None) -> Records:
    longest = builder.rules.longest
    careful = long_number_lines(b"\n".join(row.line or b"" for row in rows))
    objects: list[dict[str, Any] | Fault] = []
    faults: dict[int, Fault] = {}
    for index, row in enumerate(rows):
        found = _fault(row.error) if row.line is None else parse_object(row.line, longest, careful)
        objects.append(found)
        if not isinstance(found, Fault):
            fault = download_fault(found.get(STATUS), found.get(ERROR_MESSAGE)) or _image_fault(row, longest)
            if fault is not None:
                faults[index] = fault
    return builder.from_objects([row.row for row in rows], objects, faults, images)


def _image_fault(row: _Row, longest: int) -> Fault | None:
    if row.error is not None:
        return _fault(row.error)
    if not row.size:
        return empty_image()
    return image_too_large(row.size, longest) if row.size > longest else None


def _fault(error: str | None) -> Fault:
    code, _, message = (error or "").partition(": ")
    return Fault(code, message)
