"""How much memory Arrow columns take once their dictionaries are resolved, and batches cut by it."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute

_compute: Any = pyarrow.compute  # its functions are made when it is imported

_VALUE_BYTES = 8  # the least that a value takes as a Python object in a list


def decoded_bytes(array: pa.Array) -> int:
    """Bytes of a column's values, nested ones too, each value counted with at least 8.

    A value that a dictionary holds once counts as often as it occurs.
    """
    if isinstance(array, pa.ExtensionArray):
        return decoded_bytes(array.storage)
    if isinstance(array, pa.DictionaryArray):
        return _dictionary_bytes(array)
    if isinstance(array, pa.StructArray):
        return sum(decoded_bytes(child) for child in array.flatten())
    if isinstance(array, pa.FixedSizeListArray):
        return decoded_bytes(array.flatten())
    if isinstance(array, (pa.ListArray, pa.LargeListArray)):
        first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
        children = (array.keys, array.items) if isinstance(array, pa.MapArray) else (array.values,)
        inside = sum(decoded_bytes(child.slice(first, last - first)) for child in children)
        return inside + len(array) * _VALUE_BYTES
    if pa.types.is_string_view(array.type) or pa.types.is_binary_view(array.type):
        array = array.cast(pa.large_binary())  # a slice of views counts all that they may refer to
    return max(array.nbytes, len(array) * _VALUE_BYTES)


def longest_value(array: pa.Array) -> int:
    """Bytes of the longest text in a column's dictionary; 0 where it has none."""
    lengths = _lengths(array.dictionary) if isinstance(array, pa.DictionaryArray) else None
    return 0 if lengths is None else _compute.max(lengths).as_py() or 0


def _dictionary_bytes(array: pa.DictionaryArray) -> int:
    values = array.dictionary
    least = len(array) * _VALUE_BYTES
    lengths = _lengths(values)
    if lengths is None:
        return max(least, decoded_bytes(values) * len(array) // max(len(values), 1))
    return least + (_compute.sum(lengths.take(array.indices)).as_py() or 0)


def _lengths(values: pa.Array) -> pa.Array | None:
    """Bytes of each value, if they are bytes or text."""
    if pa.types.is_string_view(values.type) or pa.types.is_binary_view(values.type):
        values = values.cast(pa.large_binary())
    small = pa.types.is_binary(values.type) or pa.types.is_string(values.type)
    if not (small or pa.types.is_large_binary(values.type) or pa.types.is_large_string(values.type)):
        return None
    return _compute.binary_length(values).cast(pa.int64())


def batch_bytes(batch: pa.RecordBatch) -> int:
    """Bytes of all of a batch's columns, as `decoded_bytes` counts them."""
    return sum(map(decoded_bytes, batch.columns))


def parts(batch: pa.RecordBatch, size: int, most_bytes: int) -> Iterator[tuple[pa.RecordBatch, int]]:
    """A batch of `size` bytes in parts of at most `most_bytes` or one row, each with its bytes."""
    if size <= most_bytes or len(batch) <= 1:
        yield batch, size
        return
    middle = len(batch) // 2
    for half in (batch.slice(0, middle), batch.slice(middle)):
        yield from parts(half, batch_bytes(half), most_bytes)
