"""Parquet files: a segment is a range of rows, of which only the row groups it overlaps are read."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.errors import SourceError
from batch_assets.sources.arrays import PLAN_TYPES, arrow_array, natural_array
from batch_assets.sources.base import (
    BATCH_BYTES,
    BATCH_RECORDS,
    Fault,
    RecordRules,
    Records,
    Segment,
    Stretch,
)
from batch_assets.sources.columns import ColumnScan
from batch_assets.sources.files import broken, explained, touched
from batch_assets.sources.json_values import too_large
from batch_assets.sources.parquet_columns import declared_kinds, is_bytes, is_text, valid_text
from batch_assets.sources.records import RecordBuilder, id_text
from batch_assets.sources.texts import check_text
from batch_assets.storage import FileInfo, Storage

_STRETCH_ROWS = 65_536


class ParquetSource:
    """Parquet files under `storage`. `text_columns` may be binary: they are read as UTF-8.

    The columns in `unread` are taken for not there.
    """

    def __init__(
        self, storage: Storage, text_columns: frozenset[str], unread: frozenset[str] = frozenset()
    ) -> None:
        self._storage = storage
        self._text_columns = text_columns
        self._unread = unread

    def prepare(self, file: FileInfo, most: int | None) -> str:
        return ""

    def scan(
        self, file: FileInfo, spool: str, first_row: int, first_byte: int, columns: ColumnScan
    ) -> Iterator[Stretch]:
        with self._open(file.path, None) as parquet:
            metadata = parquet.metadata
            if not columns.finished:
                for field in parquet.schema_arrow:
                    if field.name in self._unread:
                        continue
                    columns.add_kinds(field.name, declared_kinds(self._declared(field), metadata))
            groups = [
                (metadata.row_group(i).num_rows, _bytes_of(metadata.row_group(i), self._unread))
                for i in range(metadata.num_row_groups)
            ]
        row = byte = 0
        for count, size in groups:
            for start in range(0, count, _STRETCH_ROWS):
                numbers = np.arange(start, min(start + _STRETCH_ROWS, count), dtype=np.int64)
                new = numbers[max(first_row - row - start, 0) :]
                if len(new):
                    # A group's bytes, shared out evenly; never fewer than one to a row.
                    yield Stretch(new + row, byte + (new + 1) * max(size, count) // count)
            row, byte = row + count, byte + max(size, count)

    def _declared(self, field: pa.Field) -> pa.Field:
        return (
            field.with_type(pa.string())
            if field.name in self._text_columns and is_bytes(field.type)
            else field
        )

    def split(self, segment: Segment, records: int) -> tuple[Segment, Segment]:
        row = segment.first_row + records
        byte = segment.first_byte + (segment.last_byte - segment.first_byte) * records // segment.records
        return (
            replace(segment, last_row=row, last_byte=byte, records=records),
            replace(segment, first_row=row, first_byte=byte, records=segment.records - records),
        )

    def read(self, segment: Segment, rules: RecordRules, ordinal: int) -> Iterator[Records]:
        builder = RecordBuilder(rules, segment.path, ordinal)
        wanted = {column.source for column in rules.columns} | set(builder.text_rule.columns)
        wanted |= {rules.id_column} if rules.id_column is not None else set()
        with self._open(segment.path, segment.version) as parquet:
            readable = [name for name in parquet.schema_arrow.names if name not in self._unread]
            present = [name for name in readable if name in wanted]
            # Parquet knows columns by dotted paths: a dot in a name would be taken for a nested one.
            selected = readable if any("." in name for name in wanted) else present
            for row, batch in _batches(parquet, segment, selected, self._unread):
                yield self._records(builder, row, batch)
            self._check(segment.path, segment.version)

    def _records(self, builder: RecordBuilder, row: int, batch: pa.RecordBatch) -> Records:
        rules = builder.rules
        count = len(batch)
        present = set(batch.schema.names)
        faults: dict[int, Fault] = {}
        readable: dict[str, pa.Array] = {}
        for name in present:
            as_text = name in self._text_columns and is_bytes(batch.column(name).type)
            readable[name] = valid_text(batch.column(name), name, as_text, faults)
        arrays: list[pa.Array] = []
        for column in rules.columns:
            if column.source in present:
                arrays.append(_planned(readable[column.source], column.type, column.source, builder))
            else:
                arrays.append(pa.nulls(count, PLAN_TYPES[column.type]))
        texts = self._texts(builder, readable, count)
        _find_overlong(texts, arrays, rules.longest)
        for index, fault in faults.items():
            texts[index] = fault
        ids: list[str | None] = [None] * count
        if rules.id_column in readable:
            ids = [id_text(value) for value in natural_array(readable[rules.id_column]).to_pylist()]
        return builder.build(range(row, row + count), texts, ids, arrays)

    def _texts(self, builder: RecordBuilder, readable: dict[str, pa.Array], count: int) -> list[str | Fault]:
        names = builder.text_rule.columns
        if builder.rules.text_template is None and names[0] in readable:
            return [check_text(value, names[0]) for value in _values(readable[names[0]])]
        values: dict[str, list[Any]] = {
            name: _values(
                natural_array(readable[name])
                if not pa.types.is_nested(readable[name].type)
                else readable[name]
            )
            for name in names
            if name in readable
        }
        rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)] or [
            {}
        ] * count
        return [builder.text_rule(values_of_row) for values_of_row in rows]

    @contextlib.contextmanager
    def _open(self, path: str, version: str | None) -> Iterator[pq.ParquetFile]:
        with explained(self._storage, path):
            self._check(path, version)
            try:
                # Buffered, not prefetched: else a whole row group would be held in memory.
                file = pq.ParquetFile(self._storage.open_input(path), pre_buffer=False, buffer_size=2**20)
                names = file.schema_arrow.names
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, (FileNotFoundError, PermissionError)):
                    raise
                raise broken(self._storage, path, "Parquet", error) from error
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise SourceError(f"{self._storage.uri}/{path}: has two columns named {twice!r}; rename one")
            try:
                with file:
                    yield file
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, (FileNotFoundError, PermissionError)):
                    raise
                raise broken(self._storage, path, "Parquet", error) from error

    def _check(self, path: str, version: str | None) -> None:
        if version is None:
            return
        info = self._storage.info(path)
        if info is None:
            raise FileNotFoundError(path)
        if info.version != version:
            raise touched(self._storage, path)


def _batches(
    parquet: pq.ParquetFile, segment: Segment, columns: list[str], unread: frozenset[str]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The segment's rows in bounded batches, each with its first physical row."""
    group_start = 0
    for group in range(parquet.metadata.num_row_groups):
        metadata = parquet.metadata.row_group(group)
        group_end = group_start + metadata.num_rows
        if group_end > segment.first_row and group_start < segment.last_row:
            average = max(_bytes_of(metadata, unread) // max(metadata.num_rows, 1), 1)
            size = max(1, min(BATCH_RECORDS, BATCH_BYTES // average))
            row = group_start
            for batch in parquet.iter_batches(size, row_groups=[group], columns=columns, use_threads=False):
                start, end = max(segment.first_row - row, 0), min(segment.last_row - row, len(batch))
                if end > start:
                    yield row + start, batch.slice(start, end - start)
                row += len(batch)
                if row >= segment.last_row:
                    break
        group_start = group_end


def _bytes_of(group: pq.RowGroupMetaData, unread: frozenset[str]) -> int:
    """Uncompressed bytes of a row group without the columns in `unread`."""
    left_out = [
        column.total_uncompressed_size
        for column in map(group.column, range(group.num_columns) if unread else ())
        if column.path_in_schema.split(".")[0] in unread
    ]
    return group.total_byte_size - sum(left_out)


def _planned(array: pa.Array, plan_type: str, name: str, builder: RecordBuilder) -> pa.Array:
    try:
        return arrow_array(array, plan_type)
    except pa.ArrowException as error:
        raise SourceError(
            f"column {name!r} holds values that are not {plan_type}, as it was planned ({error}); "
            "`plan --replace` plans the file anew"
        ) from error


def _values(array: pa.Array) -> list[Any]:
    """Python values of a column; temporal and other rare types as the text they are stored as."""
    plain = is_text(array.type) or pa.types.is_nested(array.type) or pa.types.is_primitive(array.type)
    return array.to_pylist() if plain else natural_array(array).to_pylist()


def _find_overlong(texts: list[str | Fault], arrays: list[pa.Array], longest: int) -> None:
    """Reject the rows whose text and passed-through strings are together over `longest` bytes."""
    if (
        sum(len(text) for text in texts if isinstance(text, str)) * 4 + sum(array.nbytes for array in arrays)
        <= longest
    ):
        return
    sizes = np.array([len(text.encode()) if isinstance(text, str) else 0 for text in texts], np.int64)
    strings = np.zeros(len(texts), np.int64)
    for array in arrays:
        if pa.types.is_string(array.type):
            values = array.to_pylist()
            strings += [len(value.encode()) if value is not None else 0 for value in values]
    # The text is usually one of the columns that pass through: it is not counted twice.
    for index in np.flatnonzero(np.maximum(sizes, strings) > longest):
        texts[index] = too_large(int(max(sizes[index], strings[index])), longest)
