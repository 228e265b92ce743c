"""Parquet files: a segment is a range of rows, of which only the row groups it overlaps are read."""

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice, repeat

import numpy as np
import pyarrow.parquet as pq

from batch_assets.errors import UnreadableFile
from batch_assets.sources.base import (
    BATCH_BYTES,
    BATCH_RECORDS,
    FETCHED_BYTES,
    Fault,
    RecordRules,
    Records,
    Segment,
    Stretch,
)
from batch_assets.sources.columns import ColumnScan
from batch_assets.sources.files import explained, touched
from batch_assets.sources.images import FileImages, ImageColumns
from batch_assets.sources.parquet_batches import batches
from batch_assets.sources.parquet_columns import TextColumns, declared_kinds, valid_text
from batch_assets.sources.parquet_files import open_parquet, parquet_errors, reopener
from batch_assets.sources.parquet_groups import bytes_of, check_rows, narrow, stretches
from batch_assets.sources.parquet_records import records_of, rows_of, with_values
from batch_assets.sources.partitions import Partitions, declare, no_values, repeated
from batch_assets.sources.record_ids import NO_ID, id_hashes
from batch_assets.sources.records import RecordBuilder
from batch_assets.sources.tables.snapshot import DeletedRows, kept_rows, no_deleted_rows, stored_version
from batch_assets.sources.value_texts import id_array
from batch_assets.storage import FileInfo, Storage, join_uri


class ParquetSource:
    """Parquet files under `storage`. `texts` are the columns that may be text in the form of bytes.

    The columns in `unread` are taken for not there. `images` tells in which column the images are to
    be found, where records are images. `partitions` are the values that stand beside a file, `deleted`
    its rows that are no records: of a table, as its metadata tell them.
    """

    def __init__(
        self,
        storage: Storage,
        texts: TextColumns,
        unread: frozenset[str] = frozenset(),
        images: ImageColumns | None = None,
        partitions: Partitions = no_values,
        deleted: DeletedRows = no_deleted_rows,
    ) -> None:
        self._storage = storage
        self._columns = texts
        self._unread = unread
        self._images = images
        self._partitions = partitions
        self._deleted = deleted

    def prepare(self, file: FileInfo, most: int | None) -> str:
        return ""

    def scan(
        self, file: FileInfo, spool: str, first_row: int, first_byte: int, columns: ColumnScan
    ) -> Iterator[Stretch]:
        with self._open(file.path, None) as parquet:
            metadata = parquet.metadata
            check_rows(metadata)
            images = self._images_of(parquet, file.path)
            unread = self._unread
            if images is not None:
                if images.whole:
                    columns.leave_out(images.column)
                    unread |= {images.column}
                unnamed = {name for name in images.others if not columns.names(name)}
                columns.unnamed_files |= unnamed
                unread |= unnamed
            if not columns.finished:
                as_text = self._columns.read_as_text(parquet)
                places = {metadata.schema.column(place).path: place for place in range(metadata.num_columns)}
                for field in parquet.schema_arrow:
                    if field.name in unread:
                        continue
                    declared = self._columns.declared(field, as_text)
                    columns.add_kinds(field.name, declared_kinds(declared, metadata, places))
                for name, value in self._partitions(file.path).items():
                    if name not in parquet.schema_arrow.names:
                        declare(columns, name, value)
            groups = [
                (metadata.row_group(i).num_rows, bytes_of(metadata.row_group(i), self._unread))
                for i in range(metadata.num_row_groups)
            ]
            deleted = self._deleted(file.path)
            for stretch in self._with_ids(parquet, file.path, columns.id_column, groups, first_row):
                rows = kept_rows(stretch.rows, deleted)
                if len(rows) == len(stretch.rows):
                    yield stretch
                elif len(rows):
                    kept = np.isin(stretch.rows, rows, assume_unique=True)
                    ids = None if stretch.ids is None else stretch.ids[kept]
                    yield Stretch(rows, stretch.ends[kept], ids)

    def _with_ids(
        self,
        parquet: pq.ParquetFile,
        path: str,
        id_column: str | None,
        groups: Sequence[tuple[int, int]],
        first_row: int,
    ) -> Iterator[Stretch]:
        """All rows of the file from `first_row` on."""
        if id_column is None:
            yield from stretches(groups, first_row)
            return
        ids = chain.from_iterable(self._id_hashes(parquet, path, id_column, first_row))
        for stretch in stretches(groups, first_row):
            rows = len(stretch.rows)
            yield replace(stretch, ids=np.fromiter(islice(ids, rows), np.int64, rows))

    def _id_hashes(
        self, parquet: pq.ParquetFile, path: str, name: str, first_row: int
    ) -> Iterator[Iterable[int]]:
        """Hashes of the ids from `first_row` on, batch by batch; no other column is read."""
        rows = parquet.metadata.num_rows
        names = [one for one in parquet.schema_arrow.names if one not in self._unread]
        if name not in names:
            beside = self._partitions(path).get(name)
            [one] = [NO_ID] if beside is None else id_hashes(id_array(repeated(beside, 1)).to_pylist())
            yield repeat(one, rows - first_row)
            return
        reopen = reopener(self._storage, path, parquet.metadata)
        selected = names if "." in name else [name]  # see `read`
        for _, batch in batches(parquet, reopen, selected, BATCH_RECORDS, first_row, rows):
            faults: dict[int, Fault] = {}
            column = valid_text(batch.column(name), name, False, faults)
            ids: list[str | Fault | None] = id_array(column).to_pylist()
            for index, fault in faults.items():
                ids[index] = fault
            yield id_hashes(ids)

    def _images_of(self, parquet: pq.ParquetFile, path: str) -> FileImages | None:
        if self._images is None:
            return None
        return self._images.find(parquet.schema_arrow, join_uri(self._storage.uri, path))

    def split(self, segment: Segment, records: int) -> tuple[Segment, Segment]:
        rows = kept_rows(np.arange(segment.first_row, segment.last_row), self._deleted(segment.path))
        row = int(rows[records - 1]) + 1
        byte = segment.first_byte + (segment.last_byte - segment.first_byte) * records // segment.records
        return (
            replace(segment, last_row=row, last_byte=byte, records=records),
            replace(segment, first_row=row, first_byte=byte, records=segment.records - records),
        )

    def narrow(self, segment: Segment, rows: Collection[int]) -> list[Segment]:
        with self._open(segment.path, segment.version) as parquet:
            return narrow(parquet.metadata, segment, rows)

    def read(self, segment: Segment, rules: RecordRules, ordinal: int) -> Iterator[Records]:
        builder = RecordBuilder(rules, segment.path, ordinal)
        wanted = {column.source for column in rules.columns} | set(builder.text_rule.columns)
        wanted |= {rules.id_column} if rules.id_column is not None else set()
        with self._open(segment.path, segment.version) as parquet:
            images = self._images_of(parquet, segment.path)
            unread, most = self._unread, BATCH_RECORDS
            if images is not None:
                wanted |= images.wanted(rules.contents)
                unread |= images.unread(rules.contents)
                most = BATCH_BYTES // FETCHED_BYTES if rules.contents and not images.whole else most
            readable = [name for name in parquet.schema_arrow.names if name not in unread]
            present = [name for name in readable if name in wanted]
            # Parquet knows columns by dotted paths: a dot in a name would be taken for a nested one.
            selected = readable if any("." in name for name in wanted) else present
            reopen = reopener(self._storage, segment.path, parquet.metadata)
            beside = {name: value for name, value in self._partitions(segment.path).items() if name in wanted}
            deleted = self._deleted(segment.path)
            rows = (segment.first_row, segment.last_row)
            as_text = self._columns.read_as_text(parquet)
            for row, batch in batches(parquet, reopen, selected, most, *rows):
                used = batch if selected is present else batch.select(present)
                numbers = kept_rows(np.arange(row, row + len(batch)), deleted)
                if len(numbers) < len(batch) and used.num_columns:
                    used = rows_of(used, numbers - row)
                if len(numbers):
                    used = with_values(used, beside, len(numbers))
                    yield records_of(builder, numbers, used, images, as_text)
            self._check(segment.path, segment.version)

    @contextlib.contextmanager
    def _open(self, path: str, version: str | None) -> Iterator[pq.ParquetFile]:
        with explained(self._storage, path):
            self._check(path, version)
            with parquet_errors(self._storage, path), open_parquet(self._storage, path) as file:
                names = file.schema_arrow.names
                if len(set(names)) < len(names):
                    twice = next(name for name in names if names.count(name) > 1)
                    raise UnreadableFile(
                        f"{self._storage.uri}/{path}: has two columns named {twice!r}; rename one"
                    )
                yield file

    def _check(self, path: str, version: str | None) -> None:
        if version is None:
            return
        info = self._storage.info(path)
        if info is None:
            raise FileNotFoundError(path)
        if info.version != stored_version(version):
            raise touched(self._storage, path)
