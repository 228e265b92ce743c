"""Which implementation reads which file."""

import os
from collections.abc import Iterator, Sequence

from batch_assets.sources.base import RecordRules, Records, Segment, Source
from batch_assets.sources.delimited import delimited_rows
from batch_assets.sources.files import COMPRESSIONS
from batch_assets.sources.formats import PARQUET_FORMATS
from batch_assets.sources.image_folder import ImageFolderSource
from batch_assets.sources.images import ImageColumns
from batch_assets.sources.jsonl import JsonLinesSource
from batch_assets.sources.parquet import ParquetSource
from batch_assets.sources.parquet_columns import TextColumns
from batch_assets.sources.partitions import Partitions, no_values
from batch_assets.sources.shards import UNREAD, ShardStorage
from batch_assets.sources.spool import SpooledSource, json_line_rows
from batch_assets.sources.spool_files import Spools
from batch_assets.sources.tables.snapshot import DeletedRows, no_deleted_rows
from batch_assets.sources.webdataset import WebDatasetSource
from batch_assets.storage import FileInfo, Storage


class Sources:
    """The implementations for one pipeline's source.

    `storage` is what paths are relative to, `longest` the most bytes of a record. `texts` are the columns of
    Parquet files that may be text in the form of bytes; `images` tells where files have images, if records are
    images. `partitions` are the values that stand beside a file, `deleted` the rows of a table's file that are
    no records, `dropped` the columns of such files that are none of the table's.
    """

    def __init__(
        self,
        format: str,
        storage: Storage,
        spools: Spools,
        longest: int,
        texts: TextColumns,
        images: ImageColumns | None = None,
        partitions: Partitions = no_values,
        deleted: DeletedRows = no_deleted_rows,
        dropped: frozenset[str] = frozenset(),
    ) -> None:
        self._plain: Source | None = None
        self._folder: ImageFolderSource | None = None
        if format in PARQUET_FORMATS:
            unread = UNREAD if isinstance(storage, ShardStorage) else dropped
            self._plain = self._spooled = ParquetSource(storage, texts, unread, images, partitions, deleted)
            return
        if format == "webdataset":
            named = images.named if images is not None else None
            self._plain = self._spooled = WebDatasetSource(storage, spools, longest, named)
            return
        if format == "imagefolder":
            self._plain = self._spooled = self._folder = ImageFolderSource(storage, longest)
            return
        if format == "jsonl":
            self._plain = JsonLinesSource(storage, longest, images, partitions)
        rows = delimited_rows if format == "csv" else json_line_rows
        self._spooled = SpooledSource(storage, spools, format, rows, longest, images, partitions)

    def of(self, path: str) -> Source:
        """The implementation for a file."""
        compressed = os.path.splitext(path.lower())[1] in COMPRESSIONS
        return self._spooled if compressed or self._plain is None else self._plain

    def expect(self, files: Sequence[FileInfo]) -> None:
        """Say which files will be scanned, in this order; where there are many small ones, they are read ahead."""
        if self._folder is not None:
            self._folder.expect(files)

    def read(self, segments: Sequence[Segment], rules: RecordRules) -> Iterator[Records]:
        """The records of consecutive segments, in batches, with ordinals from 0."""
        if self._folder is not None:
            yield from self._folder.read_all(segments, rules, 0)
            return
        ordinal = 0
        for segment in segments:
            yield from self.of(segment.path).read(segment, rules, ordinal)
            ordinal += segment.records
