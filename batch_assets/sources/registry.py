"""Which implementation reads which file."""

import os

from batch_assets.sources.base import Source
from batch_assets.sources.delimited import delimited_rows
from batch_assets.sources.files import COMPRESSIONS
from batch_assets.sources.formats import PARQUET_FORMATS
from batch_assets.sources.images import ImageColumns
from batch_assets.sources.jsonl import JsonLinesSource
from batch_assets.sources.parquet import ParquetSource
from batch_assets.sources.partitions import Partitions, no_values
from batch_assets.sources.shards import UNREAD, ShardStorage
from batch_assets.sources.spool import SpooledSource, json_line_rows
from batch_assets.sources.spool_files import Spools
from batch_assets.sources.tables.snapshot import DeletedRows, no_deleted_rows
from batch_assets.sources.webdataset import WebDatasetSource
from batch_assets.storage import Storage


class Sources:
    """The implementations for one pipeline's source.

    `storage` is what paths are relative to, `longest` the most bytes of a record. Text columns of
    Parquet files may be declared binary; `images` tells where they have images, if records are images. `partitions` are
    the values that stand beside a file, `deleted` the rows of a table's file that are no records,
    `dropped` the columns of such files that are none of the table's.
    """

    def __init__(
        self,
        format: str,
        storage: Storage,
        spools: Spools,
        longest: int,
        text_columns: frozenset[str],
        images: ImageColumns | None = None,
        partitions: Partitions = no_values,
        deleted: DeletedRows = no_deleted_rows,
        dropped: frozenset[str] = frozenset(),
    ) -> None:
        self._plain: Source | None = None
        if format in PARQUET_FORMATS:
            unread = UNREAD if isinstance(storage, ShardStorage) else dropped
            self._plain = self._spooled = ParquetSource(
                storage, text_columns, unread, images, partitions, deleted
            )
            return
        if format == "webdataset":
            self._plain = self._spooled = WebDatasetSource(storage, spools, longest)
            return
        if format == "jsonl":
            self._plain = JsonLinesSource(storage, longest, partitions)
        rows = delimited_rows if format == "csv" else json_line_rows
        self._spooled = SpooledSource(storage, spools, format, rows, longest, partitions)

    def of(self, path: str) -> Source:
        """The implementation for a file."""
        compressed = os.path.splitext(path.lower())[1] in COMPRESSIONS
        return self._spooled if compressed or self._plain is None else self._plain
