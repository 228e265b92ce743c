"""Dates, times and durations as text.

Python has no values for many of them: nanoseconds, years beyond 9999, time zones that nobody knows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

_UNIT_OF_DAY = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def text_of_each(array: pa.Array, write: Callable[[Any], str | None]) -> pa.Array:
    """The text that `write` makes of each value that is not null."""
    return pa.array([None if value is None else write(value) for value in array.to_pylist()], pa.string())


def temporal_text(array: pa.Array) -> pa.Array:
    """A temporal column as text: ISO 8601 (UTC where there is a time zone), durations with their unit."""
    found = array.type
    if pa.types.is_interval(found):
        return text_of_each(array, lambda value: str(tuple(value)))
    if pa.types.is_duration(found):
        return text_of_each(array.cast(pa.int64()), lambda value: f"{value}{found.unit}")
    if pa.types.is_time(found):
        return _time_text(array)
    if pa.types.is_date(found):
        return _iso(array.cast(pa.date32()).cast(pa.int32()), "D", "")
    return _iso(array.cast(pa.int64()), found.unit, "Z" if found.tz is not None else "")


def _iso(counts: pa.Array, unit: str, zone: str) -> pa.Array:
    """Counts of a unit since 1970 as dates or times, in any year."""
    known = counts.is_valid().to_numpy(zero_copy_only=False)
    numbers = counts.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    texts = np.datetime_as_string(numbers.view(f"datetime64[{unit}]"))
    return pa.array([f"{text}{zone}" for text in texts], pa.string(), mask=~known)


def _time_text(array: pa.Array) -> pa.Array:
    """A time of day; what is no time of any day, with its unit as durations are."""
    unit = array.type.unit
    most = 86_400 * _UNIT_OF_DAY[unit]
    counts = array.cast(pa.int32() if unit in ("s", "ms") else pa.int64()).to_pylist()
    inside = [None if count is None or not 0 <= count < most else count for count in counts]
    texts = pa.array(inside, array.type).cast(pa.string()).to_pylist()
    told = [
        f"{count}{unit}" if text is None and count is not None else text
        for count, text in zip(counts, texts, strict=True)
    ]
    return pa.array(told, pa.string())
