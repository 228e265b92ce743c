"""Dates, times and durations as text: of columns of their own, and inside lists, structs and maps.

Python has no values for many of them: nanoseconds, years beyond 9999, time zones that nobody knows.
"""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute

_compute: Any = pyarrow.compute  # its functions are made when it is imported


def text_of_each(array: pa.Array, write: Callable[[Any], str]) -> pa.Array:
    """The text that `write` makes of each value that is not null."""
    return pa.array([None if value is None else write(value) for value in array.to_pylist()], pa.string())


def temporal_text(array: pa.Array) -> pa.Array:
    """A temporal column as text: ISO 8601 (UTC where there is a time zone), durations with their unit."""
    found = array.type
    if pa.types.is_interval(found):
        return text_of_each(array, lambda value: str(tuple(value)))
    if pa.types.is_duration(found):
        return text_of_each(array.cast(pa.int64()), lambda value: f"{value}{found.unit}")
    if not pa.types.is_timestamp(found):
        return array.cast(pa.string())
    # Without its zone's name a timestamp is UTC, and needs no zone data base to be written.
    text = array.cast(pa.timestamp(found.unit)).cast(pa.string())
    zone = "Z" if found.tz is not None else ""
    # Of years that Arrow cannot write it says "<value out of range: …>".
    return text_of_each(text, lambda value: value if value[0] == "<" else value.replace(" ", "T") + zone)


def temporal_as_text(array: Any) -> pa.Array:
    """The same column with text for each temporal value in it, however deep it is nested."""
    found = array.type
    if not _has_temporal(found):
        return array
    if isinstance(array, pa.ExtensionArray):
        return temporal_as_text(array.storage)
    if isinstance(array, pa.DictionaryArray):
        return temporal_as_text(array.dictionary_decode())
    if not pa.types.is_nested(found):
        return temporal_text(array)
    nulls = array.is_null()
    if isinstance(array, pa.StructArray):
        names = [field.name for field in found]
        children = [temporal_as_text(array.field(place)) for place in range(len(names))]
        fields = [pa.field(name, child.type) for name, child in zip(names, children, strict=True)]
        return pa.StructArray.from_arrays(children, fields=fields, mask=nulls)
    if isinstance(array, pa.FixedSizeListArray):
        size = found.list_size
        values = array.values.slice(array.offset * size, len(array) * size)
        return pa.FixedSizeListArray.from_arrays(temporal_as_text(values), size, mask=nulls)
    if isinstance(array, (pa.ListViewArray, pa.LargeListViewArray)):
        return temporal_as_text(array.cast(pa.large_list(found.value_type)))
    # Of a slice only what it refers to is written.
    first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
    offsets = _compute.subtract(array.offsets, pa.scalar(first, array.offsets.type))
    if isinstance(array, pa.MapArray):
        keys, items = (
            temporal_as_text(part.slice(first, last - first)) for part in (array.keys, array.items)
        )
        return pa.MapArray.from_arrays(offsets, keys, items, mask=nulls)
    values = temporal_as_text(array.values.slice(first, last - first))
    return type(array).from_arrays(offsets, values, mask=nulls)


def _has_temporal(found: Any) -> bool:
    if isinstance(found, pa.BaseExtensionType):
        return _has_temporal(found.storage_type)
    if pa.types.is_dictionary(found):
        return _has_temporal(found.value_type)
    if pa.types.is_nested(found):
        return any(_has_temporal(found.field(place).type) for place in range(found.num_fields))
    return pa.types.is_temporal(found) or pa.types.is_interval(found)
