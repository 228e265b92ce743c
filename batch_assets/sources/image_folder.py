"""Image files in folders: each is a record, with the caption, the metadata and the table's row that belong to it.

A record says where its image is; the worker fetches it. Which files belong to an image is told by the
listing (`image_listing.py`). A segment is a whole file: one record, in row 0.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NoReturn

import numpy as np

from batch_assets.sources.base import (
    BATCH_BYTES,
    FETCHED_BYTES,
    Fault,
    RecordRules,
    Records,
    Segment,
    Stretch,
)
from batch_assets.sources.columns import ColumnScan
from batch_assets.sources.files import explained, open_stream, touched
from batch_assets.sources.image_listing import PlannedImage, stem
from batch_assets.sources.image_metadata import (
    COLUMNS,
    METADATA,
    ImageScan,
    image_line,
    image_values,
    parse_metadata,
    tell_incomplete,
)
from batch_assets.sources.image_tables import ImageTables
from batch_assets.sources.images import (
    ERROR_MESSAGE,
    STATUS,
    download_fault,
    empty_image,
    image_too_large,
)
from batch_assets.sources.json_values import too_large
from batch_assets.sources.record_ids import id_hashes
from batch_assets.sources.records import RecordBuilder, id_of
from batch_assets.storage import FileInfo, Storage, join_uri
from batch_assets.storage.threads import map_in_order, threads_for

_BATCH_IMAGES = BATCH_BYTES // FETCHED_BYTES


@dataclass(frozen=True)
class _Found:
    """What stands beside an image, as the values of its record; `lost` is what cannot be read of it."""

    values: dict[str, Any] | Fault
    lost: Sequence[str] = ()


class ImageFolderSource:
    """Image files below `storage`. Nothing beside an image that has over `longest` bytes is read."""

    def __init__(self, storage: Storage, longest: int) -> None:
        self._storage = storage
        self._longest = longest
        self._tables = ImageTables(storage, longest)
        self._ahead: Iterator[tuple[str, _Found]] = iter(())
        self._expected: set[str] = set()

    def prepare(self, file: FileInfo, most: int | None) -> str:
        return ""

    def expect(self, files: Sequence[FileInfo]) -> None:
        """Say which files will be scanned, in this order: what stands beside them is read ahead, many at once."""
        self._ahead = self._found_ahead(files)
        self._expected = {file.path for file in files}

    def _found_ahead(self, files: Sequence[FileInfo]) -> Iterator[tuple[str, _Found]]:
        def find(file: FileInfo) -> tuple[str, _Found]:
            return file.path, self._find(file.path, PlannedImage.of(file.version))

        incomplete, example = 0, ""
        found = map_in_order(find, files, threads_for(self._storage))
        for number, (path, one) in enumerate(found, 1):
            if one.lost:
                incomplete, example = incomplete + 1, example or f"{path}: {one.lost[0]}"
            if incomplete and number == len(files):
                tell_incomplete(self._storage.uri, incomplete, example)
            yield path, one

    def scan(
        self, file: FileInfo, spool: str, first_row: int, first_byte: int, columns: ColumnScan
    ) -> Iterator[Stretch]:
        if first_row:
            return
        ids = None
        if not columns.finished or columns.id_column is not None:
            # What is not expected would drain what is.
            ahead = self._ahead if file.path in self._expected else ()
            found = next((one for path, one in ahead if path == file.path), None)
            found = found or self._find(file.path, PlannedImage.of(file.version))
            if not isinstance(found.values, Fault):
                ImageScan(columns).add_objects([found.values])
            if columns.id_column is not None:
                ids = np.array(id_hashes([id_of(found.values, columns.id_column)]), np.int64)
        yield Stretch(np.zeros(1, np.int64), np.array([file.size], np.int64), ids)

    def split(self, segment: Segment, records: int) -> NoReturn:
        raise ValueError(f"{segment.path}: is one record, which cannot be split")

    def narrow(self, segment: Segment, rows: Collection[int]) -> list[Segment]:
        return [segment]

    def read(self, segment: Segment, rules: RecordRules, ordinal: int) -> Iterator[Records]:
        yield from self.read_all([segment], rules, ordinal)

    def read_all(self, segments: Sequence[Segment], rules: RecordRules, ordinal: int) -> Iterator[Records]:
        """The records of many files, in batches of those that a store is asked for at the same time."""
        loaded = map_in_order(self._load, segments, threads_for(self._storage))
        remaining = iter(segments)
        while batch := list(islice(remaining, _BATCH_IMAGES)):
            yield self._records(batch, list(islice(loaded, len(batch))), rules, ordinal)
            ordinal += len(batch)

    def _load(self, segment: Segment) -> tuple[_Found, Fault | None]:
        """What stands beside an image, and what is wrong with the image itself, as far as its size tells."""
        planned = PlannedImage.of(segment.version)
        with explained(self._storage, segment.path):
            info = self._storage.info(segment.path)
        if info is None:
            return _Found({}), Fault("image_missing", "the file is gone since it was planned")
        if info.version != planned.version:
            raise touched(self._storage, segment.path)
        found = self._find(segment.path, planned)
        if not info.size:
            return found, empty_image()
        return found, image_too_large(info.size, self._longest) if info.size > self._longest else None

    def _records(
        self,
        segments: Sequence[Segment],
        loaded: Sequence[tuple[_Found, Fault | None]],
        rules: RecordRules,
        ordinal: int,
    ) -> Records:
        paths = [segment.path for segment in segments]
        faults: dict[int, Fault] = {}
        for index, (found, wrong) in enumerate(loaded):
            values: Mapping[str, Any] = {} if isinstance(found.values, Fault) else found.values
            if fault := download_fault(values.get(STATUS), values.get(ERROR_MESSAGE)) or wrong:
                faults[index] = fault
        images = [join_uri(self._storage.uri, path) for path in paths] if rules.contents else None
        # The builder knows one file and its rows: here the rows are places in the batch.
        builder = RecordBuilder(rules, paths[0], ordinal)
        objects = [found.values for found, _ in loaded]
        records = builder.from_objects(range(len(paths)), objects, faults, images)
        records.source_files = [paths[place] for place in records.source_rows]
        records.source_rows = [0] * len(records)
        records.rejections = [
            replace(one, source_file=paths[one.source_row], source_row=0) for one in records.rejections
        ]
        return records

    def _find(self, path: str, planned: PlannedImage) -> _Found:
        """Read what stands beside an image: of what both say, its own .json counts before the table."""
        lost: list[str] = []
        metadata: dict[str, Any] = {}
        if planned.table is not None:
            metadata |= self._tables.row(planned.table, path)
        texts = {
            extension: self._beside(f"{stem(path)}.{extension}", *told)
            for extension, told in planned.beside.items()
        }
        if METADATA in texts:
            own = parse_metadata(texts.pop(METADATA))
            if isinstance(own, Fault):
                lost.append(f".{METADATA}: {own.message}")
            else:
                metadata |= own
        key = metadata.get("key")
        captions = {extension: texts[extension] for extension in COLUMNS if extension in texts}
        values, unread = image_values(stem(path) if key is None else key, metadata, captions)
        line, unwritten = image_line(values, self._longest)
        if len(line) > self._longest:
            return _Found(too_large(len(line), self._longest))
        return _Found(json.loads(line), [*lost, *unread, *unwritten])

    def _beside(self, path: str, size: int, version: str) -> bytes | Fault:
        if size > self._longest:
            return too_large(size, self._longest)
        return b"".join(open_stream(self._storage, path, 0, size, version)) if size else b""
