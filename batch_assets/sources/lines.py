"""Lines of a byte stream: split at newlines only, by the block, with bounded memory.

Planner and readers split by this one module, so that they never disagree about a line.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLOCK_BYTES = 2**20
_NEWLINE = ord("\n")
_WHITE = np.zeros(256, dtype=bool)
_WHITE[[9, 10, 11, 12, 13, 32]] = True


@dataclass(frozen=True)
class LineBlock:
    """Whole lines at `first_byte` of a file; the file's last line may lack its newline.

    A line longer than allowed comes alone, as its `size` and its number of `"`, without its `data`.
    """

    first_byte: int
    size: int
    data: bytes = b""
    blank: bool = False  # an overlong line of nothing but white space
    quotes: int = 0  # of an overlong line: CSV must know whether it ends within a quoted cell

    @property
    def overlong(self) -> bool:
        return not self.data


def line_blocks(chunks: Iterable[bytes], first_byte: int, longest: int) -> Iterator[LineBlock]:
    """Group the lines of `chunks` into blocks of about 1 MiB; about `longest` bytes wait for a newline."""
    carry = b""  # the beginning of a line whose end is not there yet
    skipped, blank, quotes = 0, True, 0  # of an overlong line, what has gone by
    for chunk in _pieces(chunks):
        if skipped:
            end = chunk.find(b"\n") + 1
            blank = blank and not chunk[: end or None].strip()
            quotes += chunk.count(b'"', 0, end or len(chunk))
            skipped += end or len(chunk)
            if not end:
                continue
            yield LineBlock(first_byte, skipped, blank=blank, quotes=quotes)
            first_byte, skipped, chunk = first_byte + skipped, 0, chunk[end:]  # noqa: PLW2901
        carry += chunk
        if end := carry.rfind(b"\n", len(carry) - len(chunk)) + 1:
            yield LineBlock(first_byte, end, carry[:end])
            first_byte, carry = first_byte + end, carry[end:]
        if len(carry) > longest:
            skipped, blank, quotes, carry = len(carry), not carry.strip(), carry.count(b'"'), b""
    if skipped:
        yield LineBlock(first_byte, skipped, blank=blank, quotes=quotes)
    elif carry:
        yield LineBlock(first_byte, len(carry), carry)


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Smaller chunks: what is made of a block takes many times its size."""
    for chunk in chunks:
        for start in range(0, len(chunk), _BLOCK_BYTES):
            yield chunk[start : start + _BLOCK_BYTES]


def lines_of(block: LineBlock) -> list[bytes]:
    """The block's lines without their newlines, and without the file's byte-order mark."""
    data = block.data
    if block.first_byte == 0 and data.startswith(BYTE_ORDER_MARK):
        data = data[len(BYTE_ORDER_MARK) :]
    lines = data.split(b"\n")
    if not lines[-1] and block.data.endswith(b"\n"):
        lines.pop()
    return lines


def find_records(block: LineBlock) -> tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Count the block's lines; of those that are not blank, give number and end.

    Returns (lines, numbers within the block (n), byte offsets behind each in the file (n)).
    """
    if block.overlong:
        found = [] if block.blank else [0]
        return 1, np.array(found, np.int64), np.array([block.first_byte + block.size] * len(found), np.int64)
    array = np.frombuffer(block.data, np.uint8)
    ends = np.flatnonzero(array == _NEWLINE) + 1
    if array[-1] != _NEWLINE:
        ends = np.append(ends, len(array))
    starts = np.concatenate(([0], ends[:-1]))
    if block.first_byte == 0 and block.data.startswith(BYTE_ORDER_MARK):
        starts[0] = len(BYTE_ORDER_MARK)
    # Only lines that begin with white space (or their own newline) can be blank.
    first = array[np.minimum(starts, len(array) - 1)]
    suspects = np.flatnonzero(_WHITE[first] | (starts >= ends))
    if len(suspects) == 0:
        numbers = np.arange(len(ends))
    else:
        kept = np.ones(len(ends), dtype=bool)
        for index in suspects:
            kept[index] = bool(block.data[starts[index] : ends[index]].strip())
        numbers = np.flatnonzero(kept)
    return len(ends), numbers, ends[numbers] + block.first_byte
