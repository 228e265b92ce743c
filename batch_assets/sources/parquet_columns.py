"""Single columns of Parquet files: what they declare to hold, and text that may be none."""

import codecs
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.sources.base import Fault
from batch_assets.sources.column_kinds import Kinds
from batch_assets.sources.column_types import JSON_EXTENSION, declared_type, is_bytes, is_text
from batch_assets.sources.decoded import decoded_bytes
from batch_assets.sources.json_values import too_large
from batch_assets.sources.temporal import text_of_each
from batch_assets.sources.value_texts import plain_array
from batch_assets.sources.widening import is_integer

_MARKED_TEXT = ("ENUM", "INTERVAL")
_BOUND_BYTES = 48  # what writers leave of a bound at least


def declared_kinds(field: pa.Field, metadata: pq.FileMetaData, places: Mapping[str, int]) -> Kinds:
    """What a column can hold, by its declared type, and for integers by the file's statistics.

    `places` are those of the file's leaf columns, by their paths.
    """
    kinds = Kinds()
    plan_type = declared_type(field.type)
    if plan_type is not None:
        kinds.add(plan_type)
        if is_integer(plan_type):
            limits = np.iinfo(plan_type)
            possible = int(limits.min), int(limits.max)
            kinds.add(plan_type, *_range(places.get(field.name), metadata, possible))
    return kinds


def _range(place: int | None, metadata: pq.FileMetaData, possible: tuple[int, int]) -> tuple[int, int]:
    """The least and greatest integer of a column; those that are `possible` where the file does not tell."""
    lowest: list[int] = []
    highest: list[int] = []
    for group in range(metadata.num_row_groups):
        column = metadata.row_group(group).column(place) if place is not None else None
        statistics = column.statistics if column is not None else None
        if statistics is None or not statistics.has_min_max:
            if statistics is not None and statistics.null_count == metadata.row_group(group).num_rows:
                continue
            return possible
        lowest.append(statistics.min)
        highest.append(statistics.max)
    return min(lowest, default=0), max(highest, default=0)


def columns_marked(metadata: pq.FileMetaData, kind: str) -> frozenset[str]:
    """Flat columns that Parquet marks as of a kind, ENUM or INTERVAL, and Arrow takes for bytes."""
    found = map(metadata.schema.column, range(metadata.num_columns))
    return frozenset(column.path for column in found if column.converted_type == kind)


def with_text_of_intervals(batch: pa.RecordBatch, names: Collection[str]) -> pa.RecordBatch:
    """The batch with its columns of `names` as durations of ISO 8601: P1M2DT3.500S."""
    for place, name in enumerate(batch.schema.names):
        if name in names:
            batch = batch.set_column(place, name, text_of_each(batch.column(place), _interval_text))
    return batch


def _interval_text(value: bytes) -> str:
    """Parquet's INTERVAL: unsigned integers of 4 bytes, months, days and milliseconds."""
    months, days, milliseconds = struct.unpack("<3I", value)
    return f"P{months}M{days}DT{milliseconds // 1000}.{milliseconds % 1000:03}S"


def binary_columns(metadata: pq.FileMetaData) -> frozenset[str]:
    """Flat columns of bytes that are no text, by the least and greatest values that the file tells of.

    Some writers do not mark text as such: what might be text is not among them.
    """
    found: set[str] = set()
    for place in range(metadata.num_columns):
        column = metadata.schema.column(place)
        if column.physical_type != "BYTE_ARRAY" or column.logical_type.type != "NONE":
            continue
        for number in range(metadata.num_row_groups):
            statistics = metadata.row_group(number).column(place).statistics
            bounds = (
                (statistics.min, statistics.max) if statistics is not None and statistics.has_min_max else ()
            )
            if any(isinstance(bound, bytes) and not _begins_as_text(bound) for bound in bounds):
                found.add(column.path)
                break
    return frozenset(found)


def _begins_as_text(value: bytes) -> bool:
    try:
        # A long bound may be cut off, also within a character.
        codecs.getincrementaldecoder("utf-8")().decode(value[:_BOUND_BYTES])
    except UnicodeDecodeError:
        return False
    return True


@dataclass(frozen=True)
class TextColumns:
    """The columns that a record's text and id are made of: bytes in them may be text.

    `texts` are one column, or those of a `template`.
    """

    texts: frozenset[str]
    template: bool
    id_column: str | None = None

    def read_as_text(self, parquet: pq.ParquetFile) -> frozenset[str]:
        """The columns of bytes in this file that are to be read as text, whose faults reject a record."""
        schema = parquet.schema_arrow
        found = {name for name in self.texts & set(schema.names) if is_bytes(_values(schema, name))}
        if self.template:
            found = {name for name in found if not pa.types.is_fixed_size_binary(_values(schema, name))}
            found -= binary_columns(parquet.metadata)
        return frozenset(found).union(*(columns_marked(parquet.metadata, kind) for kind in _MARKED_TEXT))

    def declared(self, field: pa.Field, as_text: frozenset[str]) -> pa.Field:
        """A field as what passes through: text where it is read as such, and where it is an id of bytes."""
        is_id = field.name == self.id_column and is_bytes(_value_type(field.type))
        return field.with_type(pa.string()) if is_id or field.name in as_text else field


def _values(schema: pa.Schema, name: str) -> pa.DataType:
    return _value_type(schema.field(name).type)


def _value_type(data_type: pa.DataType) -> pa.DataType:
    return data_type.value_type if pa.types.is_dictionary(data_type) else data_type


def valid_text(array: pa.Array, name: str, as_text: bool, faults: dict[int, Fault]) -> pa.Array:
    """The column, decoded; where text, nested or not, is no UTF-8 (Parquet does not see to it), null and a fault."""
    if isinstance(array, pa.ExtensionArray) and array.type.extension_name == JSON_EXTENSION:
        return pa.ExtensionArray.from_storage(array.type, valid_text(array.storage, name, as_text, faults))
    array = plain_array(array)
    if pa.types.is_nested(array.type):
        return _valid_nested(array, name, faults)
    if not as_text and not is_text(array.type):
        return array
    if not as_text:
        try:
            array.validate(full=True)
            return array
        except pa.ArrowInvalid:
            pass
    values: list[str | None] = []
    for index, value in enumerate(array.cast(pa.large_binary()).to_pylist()):
        try:
            values.append(None if value is None else value.decode())
        except UnicodeDecodeError as error:
            values.append(None)
            faults[index] = Fault(
                "invalid_utf8", f"column {name!r}: byte {error.start} is no UTF-8 ({error.reason})"
            )
    return pa.array(values, pa.string())


def _valid_nested(array: pa.Array, name: str, faults: dict[int, Fault]) -> pa.Array:
    try:
        array.validate(full=True)
        return array
    except pa.ArrowInvalid:
        pass
    rows: list[int | None] = list(range(len(array)))
    for index in range(len(array)):
        try:
            array.take(pa.array([index], pa.int64())).validate(full=True)
        except pa.ArrowInvalid as error:
            rows[index] = None
            faults[index] = Fault("invalid_utf8", f"column {name!r} holds text that is no UTF-8 ({error})")
    return array.take(pa.array(rows, pa.int64()))


def find_overlong(
    texts: list[str | Fault], ids: list[str | None], arrays: list[pa.Array], longest: int
) -> None:
    """Reject the rows whose text, id or passed-through values are over `longest` bytes; such an id is dropped."""
    characters = sum(len(text) for text in (*texts, *ids) if isinstance(text, str))
    if characters * 4 + sum(array.nbytes for array in arrays) <= longest:
        return
    for index, value in enumerate(ids):
        if value is not None and (size := len(value.encode())) > longest:
            texts[index], ids[index] = too_large(size, longest), None
    sizes = np.array([len(text.encode()) if isinstance(text, str) else 0 for text in texts], np.int64)
    strings = np.zeros(len(texts), np.int64)
    for array in arrays:
        if pa.types.is_string(array.type):
            values = array.to_pylist()
            strings += [len(value.encode()) if value is not None else 0 for value in values]
        elif not pa.types.is_primitive(array.type):
            strings += [decoded_bytes(array.slice(index, 1)) for index in range(len(array))]
    # The text is usually one of the columns that pass through: it is not counted twice.
    for index in np.flatnonzero(np.maximum(sizes, strings) > longest):
        texts[index] = too_large(int(max(sizes[index], strings[index])), longest)
