"""JSON as this project reads and writes it: strict, exact integers, and never a crash.

Of duplicate keys the last one counts. NaN, Infinity, numbers beyond float64's range and
nesting deeper than 1,024 are no JSON here. Integers of any size are kept exactly.
"""

import json
import re
from typing import Any

import numpy as np
import orjson

from batch_assets.sources.base import Fault

_LONG = re.compile(rb"[0-9]{19}")
_DIGITS = 19  # the fewest digits of an integer beyond int64


def has_long_number(data: bytes) -> bool:
    """Whether `data` holds 19 digits in a row: only then may orjson have made an integer a float."""
    digits = (np.frombuffer(data, np.uint8) - ord("0")) < 10
    for step in (1, 2, 4, 8, 3):  # runs of 2, 4, 8, 16, 19
        if len(digits) <= step:
            return False
        digits = digits[:-step] & digits[step:]
    return bool(digits.any())


def parse_object(line: bytes, longest: int, exact: bool) -> dict[str, Any] | Fault:
    """The JSON object in `line`, or why there is none. `exact`: look out for long integers."""
    if len(line) > longest:
        return too_large(len(line), longest)
    try:
        value = orjson.loads(line)
        if exact and _LONG.search(line):
            value = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        return _why_not(line, error)
    if type(value) is not dict:
        return Fault("not_an_object", f"the line holds {_article(value)}, not a JSON object: {shown(line)}")
    return value


def too_large(size: int, longest: int) -> Fault:
    """The fault of a record of `size` bytes."""
    return Fault("too_large", f"{size:,} bytes; shards.max_record_bytes allows {longest:,}")


def json_text(value: Any) -> str:
    """The value as JSON text. Raises RecursionError where it is nested too deeply."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # integers beyond 64 bits, nesting beyond 254
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def shown(data: bytes, most: int = 60) -> str:
    """The beginning of a line, fit for a message."""
    text = data[:most].decode(errors="replace").strip()
    return repr(text + "…" if len(data) > most else text)


def _why_not(line: bytes, error: Exception) -> Fault:
    try:
        line.decode()
    except UnicodeDecodeError as decoding:
        return Fault("invalid_utf8", f"byte {decoding.start} of the line is no UTF-8 ({decoding.reason})")
    message = str(error)
    if "surrogate" in message:
        return Fault("lone_surrogate", f"half of a surrogate pair, which is no character: {message}")
    if isinstance(error, RecursionError):
        message = "nested too deeply"
    return Fault("not_json", f"{message}: {shown(line)}")


def _article(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
