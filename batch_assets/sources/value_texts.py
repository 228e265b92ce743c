"""Values of Arrow columns as text, by one rule wherever text is made of them: ids, templates, JSON text.

Text stays as it is, numbers are written as JSON writes them, dates and times in ISO 8601 (UTC where there
is a time zone), decimals in digits, durations with their unit, UUIDs in their usual form, other bytes in
base64, lists, structs and maps as JSON. NaN and the infinities, which JSON lacks, are null.
"""

import base64
import math
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from batch_assets.sources.column_types import (
    BOOL_EXTENSION,
    UUID_EXTENSION,
    is_bytes,
    is_list_view,
    is_text,
)
from batch_assets.sources.json_values import json_text
from batch_assets.sources.stored_names import distinct_names
from batch_assets.sources.temporal import temporal_text, text_of_each

_compute: Any = pyarrow.compute  # its functions are made when it is imported
_UUID_BYTES = 16
_EXACT = 2**53


def plain_array(array: Any) -> pa.Array:
    """The column without dictionaries, extensions and views of lists, however deep they are nested.

    UUIDs become text, what else an extension stands for is what it is stored as.
    """
    if isinstance(array, pa.ExtensionArray):
        if array.type.extension_name == UUID_EXTENSION:
            return text_of_each(array.storage, lambda value: str(uuid.UUID(bytes=value)))
        if array.type.extension_name == BOOL_EXTENSION:
            return array.storage.cast(pa.bool_())
        return plain_array(array.storage)
    if isinstance(array, pa.DictionaryArray):
        return plain_array(array.dictionary_decode())
    return array if _is_plain(array.type) else _with_children(array, plain_array)


def _is_plain(found: Any) -> bool:
    if isinstance(found, pa.BaseExtensionType) or pa.types.is_dictionary(found) or is_list_view(found):
        return False
    nested = pa.types.is_nested(found) and not pa.types.is_union(found)
    return not nested or all(_is_plain(found.field(place).type) for place in range(found.num_fields))


def text_array(array: pa.Array) -> pa.Array:
    """Each value as text."""
    array = plain_array(array)
    if is_text(array.type):
        return array.cast(pa.string())
    ready = json_ready(array)
    if is_text(ready.type):
        return ready
    return text_of_each(ready, lambda value: None if _is_no_number(value) else json_text(value))


def json_array(array: pa.Array) -> pa.Array:
    """Each value as JSON text: text in quotes, everything else as `text_array` has it."""
    return text_of_each(json_ready(array), lambda value: None if _is_no_number(value) else json_text(value))


def id_array(array: pa.Array) -> pa.Array:
    """Each value as a record's id, as `id_text` has it of JSON.

    Bytes are text where they are printable UTF-8, since some writers of Parquet do not mark text; 16 other
    ones are written as a UUID, else in hex. Bytes of a fixed size are never text.
    """
    array = plain_array(array)
    if is_bytes(array.type):
        fixed = pa.types.is_fixed_size_binary(array.type)
        return text_of_each(array, lambda value: _bytes_id(value, fixed=fixed))
    if pa.types.is_floating(array.type):
        values = zip(array.cast(pa.float64()).to_pylist(), json_ready(array).to_pylist(), strict=True)
        return pa.array(
            [id_text(exact if _is_whole(exact) else short) for exact, short in values], pa.string()
        )
    return text_array(array)


def id_text(value: Any) -> str | None:
    """A value of JSON as a record's id; None is no id, and neither is NaN.

    Text stays as it is. A whole number is written without a fraction: pandas makes floats of
    integers where one is missing.
    """
    if value is None or isinstance(value, str):
        return value
    if _is_no_number(value):
        return None
    return str(int(value)) if _is_whole(value) else json_text(value)


def _is_whole(value: Any) -> bool:
    """Whether it is a float that means one integer and no other."""
    return isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT


def _bytes_id(value: bytes, *, fixed: bool) -> str:
    if not fixed:
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = "\0"
        if text.isprintable():
            return text
    return str(uuid.UUID(bytes=value)) if len(value) == _UUID_BYTES else value.hex()


def values_of(array: pa.Array) -> list[Any]:
    """Python values: numbers and booleans as they are, NaN among them; everything else as text."""
    array = plain_array(array)
    if pa.types.is_floating(array.type):
        return json_ready(array).to_pylist()
    plain = pa.types.is_integer(array.type) or pa.types.is_boolean(array.type)
    return array.to_pylist() if plain else text_array(array).to_pylist()


def json_ready(array: Any) -> pa.Array:
    """The same column with what JSON lacks replaced, however deep it is nested."""
    array = plain_array(array)
    found = array.type
    if pa.types.is_union(found):
        return text_of_each(array, lambda value: value if isinstance(value, str) else repr(value))
    if pa.types.is_nested(found):
        return _with_children(array, json_ready)
    if pa.types.is_temporal(found) or pa.types.is_interval(found):
        return temporal_text(array)
    if pa.types.is_decimal(found):
        return text_of_each(array, lambda value: format(value, "f"))
    if is_bytes(found):
        return text_of_each(array, lambda value: base64.b64encode(value).decode())
    # The shortest digits that mean this value: 0.1, not 0.10000000149011612.
    if found == pa.float32():
        return array.cast(pa.string()).cast(pa.float64())
    if found == pa.float16():
        return text_of_each(array, lambda value: str(np.float16(value))).cast(pa.float64())
    return array


def _with_children(array: Any, convert: Callable[[Any], pa.Array]) -> pa.Array:
    """A nested column with the columns inside it converted. A name that a struct has twice gets a number."""
    found = array.type
    nulls = array.is_null()
    if isinstance(array, pa.StructArray):
        children = [convert(array.field(place)) for place in range(found.num_fields)]
        names = distinct_names([field.name for field in found])
        fields = [pa.field(name, child.type) for name, child in zip(names, children, strict=True)]
        return pa.StructArray.from_arrays(children, fields=fields, mask=nulls)
    if is_list_view(found) or (isinstance(array, pa.FixedSizeListArray) and not found.list_size):
        # A cast would take views for offsets, and Arrow makes no lists of no items.
        lengths = _compute.list_value_length(array).fill_null(0).cast(pa.int64())
        offsets = pa.concat_arrays([pa.array([0], pa.int64()), _compute.cumulative_sum(lengths)])
        return pa.LargeListArray.from_arrays(offsets, convert(array.flatten()), mask=nulls)
    if isinstance(array, pa.FixedSizeListArray):
        size = found.list_size
        values = array.values.slice(array.offset * size, len(array) * size)
        return pa.FixedSizeListArray.from_arrays(convert(values), size, mask=nulls)
    # Of a slice only what it refers to is written.
    first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
    offsets = _compute.subtract(array.offsets, pa.scalar(first, array.offsets.type))
    if isinstance(array, pa.MapArray):
        keys, items = (convert(part.slice(first, last - first)) for part in (array.keys, array.items))
        return pa.MapArray.from_arrays(offsets, keys, items, mask=nulls)
    values = convert(array.values.slice(first, last - first))
    return type(array).from_arrays(offsets, values, mask=nulls)


def _is_no_number(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
