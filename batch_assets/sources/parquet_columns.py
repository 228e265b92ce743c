"""Single columns of Parquet files: what they declare to hold, and text that may be none."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.sources.arrays import natural_type
from batch_assets.sources.base import Fault
from batch_assets.sources.columns import Kinds
from batch_assets.sources.json_values import too_large

_INT64 = (-(2**63), 2**63 - 1)


def declared_kinds(field: pa.Field, metadata: pq.FileMetaData, places: Mapping[str, int]) -> Kinds:
    """What a column can hold, by its declared type, and for integers by the file's statistics.

    `places` are those of the file's leaf columns, by their paths.
    """
    kinds = Kinds()
    plan_type = natural_type(field.type)
    if plan_type == "int64":
        kinds.add_ints(*_range(places.get(field.name), metadata))
    kinds.bools = plan_type == "bool"
    kinds.floats = plan_type == "float64"
    kinds.strings = plan_type == "string"
    kinds.others = plan_type == "json"
    return kinds


def _range(place: int | None, metadata: pq.FileMetaData) -> tuple[int, int]:
    """The least and greatest integer of a column; all of int64 where the file does not tell."""
    lowest: list[int] = []
    highest: list[int] = []
    for group in range(metadata.num_row_groups):
        column = metadata.row_group(group).column(place) if place is not None else None
        statistics = column.statistics if column is not None else None
        if statistics is None or not statistics.has_min_max:
            if statistics is not None and statistics.null_count == metadata.row_group(group).num_rows:
                continue
            return _INT64
        lowest.append(statistics.min)
        highest.append(statistics.max)
    return min(lowest, default=0), max(highest, default=0)


def is_bytes(data_type: pa.DataType) -> bool:
    return (
        pa.types.is_binary(data_type)
        or pa.types.is_large_binary(data_type)
        or pa.types.is_binary_view(data_type)
    )


def is_text(data_type: pa.DataType) -> bool:
    return (
        pa.types.is_string(data_type)
        or pa.types.is_large_string(data_type)
        or pa.types.is_string_view(data_type)
    )


def valid_text(array: pa.Array, name: str, as_text: bool, faults: dict[int, Fault]) -> pa.Array:
    """The column, decoded; where a string is no UTF-8 (Parquet does not see to it), null and a fault."""
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary_decode()
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
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
    return pa.array(values, pa.large_string())


def find_overlong(
    texts: list[str | Fault], ids: list[str | None], arrays: list[pa.Array], longest: int
) -> None:
    """Reject the rows whose text, id or passed-through strings are over `longest` bytes; such an id is dropped."""
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
    # The text is usually one of the columns that pass through: it is not counted twice.
    for index in np.flatnonzero(np.maximum(sizes, strings) > longest):
        texts[index] = too_large(int(max(sizes[index], strings[index])), longest)
