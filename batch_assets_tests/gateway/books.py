"""The server's books: a line for each input that was computed, and one for each call that was refused.

Lines are with the operating system before the answer goes out, so they outlive the process.
"""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import orjson


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `digest` is that of the input's text, None where nothing was computed.

    `status` is what the caller is answered, 0 where the answer does not leave whole. `fault` is the first
    one that hit the call, or `overload`, or `caller_gone`. `in_flight` counts the calls at hand when this
    one came, itself included.
    """

    call: int
    time: float
    status: int
    in_flight: int
    digest: str | None = None
    fault: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


class Books:
    """The writer: one per process, which appends to what earlier ones have written."""

    def __init__(self, path: Path | None) -> None:
        """Write to `path`; with None, nothing is written."""
        self.last_call = max((entry.call for entry in read_books(path)), default=0) if path else 0
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._file = os.open(path, flags, 0o644) if path else None

    def write(self, entries: Iterable[Entry]) -> None:
        if self._file is not None:
            os.write(
                self._file,
                b"".join(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE) for entry in entries),
            )


def read_books(path: Path) -> list[Entry]:
    """All whole lines so far; none where the file is not there yet."""
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    return [Entry(**orjson.loads(line)) for line in lines if line.endswith(b"\n")]


def computed(entries: Iterable[Entry]) -> Counter[str]:
    """How often each input was computed, by its digest."""
    return Counter(entry.digest for entry in entries if entry.digest is not None)
