"""JSON as this project reads and writes it: strict, exact integers, and never a crash.

Of duplicate keys the last one counts. NaN, Infinity, numbers beyond float64's range and
nesting deeper than 1,024 are no JSON here. Integers of any size are kept exactly.
"""

import json
from collections.abc import Set
from typing import Any

import numpy as np
import orjson

from batch_assets.sources.base import Fault
from batch_assets.sources.lines import BYTE_ORDER_MARK

_RUN = 19  # digits of the shortest integer beyond int64


def long_number_lines(data: bytes) -> set[bytes]:
    """The lines that may hold an integer beyond 64 bits, of which orjson would make a float.

    That takes 20 digits in a row, or 19 behind a minus; digits behind a point are a fraction's.
    """
    array = np.frombuffer(data, np.uint8)
    digits = (array - ord("0")) < 10
    runs = digits
    for step in (1, 2, 4, 8, 3):  # the starts of runs of 2, 4, 8, 16, 19
        if len(runs) <= step:
            return set()
        runs = runs[:-step] & runs[step:]
    lines: set[bytes] = set()
    end = 0
    for position in np.flatnonzero(runs).tolist():
        before = data[position - 1 : position] if position else b""
        longer = position + _RUN < len(data) and digits[position + _RUN]
        if position < end or before.isdigit() or before == b"." or not (longer or before == b"-"):
            continue
        start = data.rfind(b"\n", 0, position) + 1
        end = data.find(b"\n", position)
        end = end if end >= 0 else len(data)
        lines.add(data[start:end].removeprefix(BYTE_ORDER_MARK if start == 0 else b""))
    return lines


def parse_object(line: bytes, longest: int, careful: Set[bytes]) -> dict[str, Any] | Fault:
    """The JSON object in `line`, or why there is none; for the lines in `careful`, with exact integers."""
    if len(line) > longest:
        return too_large(len(line), longest)
    try:
        value = orjson.loads(line)
        if line in careful:
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
