"""JSON as this project reads and writes it: strict, exact integers, and never a crash.

Of duplicate keys the last one counts. NaN and Infinity, which JSON lacks and Python's `json` writes, are
null, and so are fractions beyond float64's range. Nesting deeper than 1,024 is no JSON here. Integers of
up to 4,300 digits are kept exactly; longer ones are null.
"""

import json
import math
import re
from collections.abc import Set
from typing import Any

import numpy as np
import orjson

from batch_assets.sources.base import Fault
from batch_assets.sources.lines import BYTE_ORDER_MARK

_RUN = 19  # digits of the shortest integer beyond int64
_MOST_DIGITS = 4_300  # of an integer that Python reads
# Both pass over strings (to the line's end where they have none) and try no part of a line twice (`*+`), so that
# they take no longer than the line is long, whatever stands there. A number beyond float64 has 309 digits or more,
# or an exponent of three.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?'
_WORDS = re.compile(_STRING + rb"|NaN|-Infinity|Infinity", re.DOTALL)
_LARGE_NUMBERS = re.compile(
    _STRING + rb"|(?<![0-9.])-?(?:[0-9]{300,}+(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?"
    rb"|[0-9]++(?:\.[0-9]++)?[eE]\+?[0-9]{3,}+)",
    re.DOTALL,
)


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
        value = _parse(line, exact=line in careful)
    except (ValueError, RecursionError) as error:
        return _why_not(line, error)
    if type(value) is not dict:
        return Fault("not_an_object", f"the line holds {_article(value)}, not a JSON object: {shown(line)}")
    return value


def _parse(line: bytes, *, exact: bool) -> Any:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        value = _parse_finite(line)
        if not exact:
            return value
        # With what JSON lacks as null, and integers as they are.
        return json.loads(
            line.decode(),
            parse_constant=lambda _: None,
            parse_float=_finite_float,
            parse_int=_readable_integer,
        )
    return json.loads(line.decode()) if exact else value


def _parse_finite(line: bytes) -> Any:
    """What the line holds once words and numbers that are not finite are replaced: null is, an integer 0."""
    finite = _WORDS.sub(_finite, line)
    try:
        return orjson.loads(finite)  # which goes on to judge everything else
    except orjson.JSONDecodeError:
        return orjson.loads(_LARGE_NUMBERS.sub(_finite, finite))


def _finite(match: re.Match[bytes]) -> bytes:
    found = match[0]
    if found.startswith(b'"'):
        return found
    if found.endswith((b"N", b"y")):  # NaN, Infinity
        return b"null"
    if math.isfinite(float(found)):
        return found
    return b"0" if found.lstrip(b"-").isdigit() else b"null"


def _finite_float(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


def _readable_integer(digits: str) -> int | None:
    return int(digits) if len(digits.lstrip("-")) <= _MOST_DIGITS else None


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
