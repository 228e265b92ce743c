"""The headers of a tar, as bytes say it: a member's name, size and kind, and the records of PAX.

Every number is checked: a size is never negative. How headers follow each other is in `tar_files.py`.
"""

import re
import tarfile
from typing import NamedTuple

BLOCK = 512
REGULAR = frozenset({b"0", b"\0", b"7"})
LONG_NAME, GNU_SPARSE, PAX = b"L", b"S", frozenset({b"x", b"X"})
_ASIDE = frozenset({b"L", b"K", b"x", b"X", b"g"})  # what is said of the member to come, or of all
_WITHOUT_CONTENT = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})  # links, devices, folders, pipes
_OCTAL = re.compile(rb"[ ]*([0-7]*)[ ]*")
_CHECKSUM = slice(148, 156)


class Header(NamedTuple):
    """A header: `size` bytes follow it, which are a member of this kind, or are said of the next one."""

    name: str
    kind: bytes
    size: int
    extended: bool  # further blocks of a sparse file's map follow

    @property
    def is_member(self) -> bool:
        return self.kind not in _ASIDE

    @property
    def has_content(self) -> bool:
        return self.kind not in _WITHOUT_CONTENT


def parse_header(block: bytes, offset: int) -> Header:
    """The header in a block that lies at byte `offset`. Raises tarfile.ReadError where it is damaged."""
    if not _checked(block):
        raise damaged(offset)
    kind = block[156:157]
    size = _number(block[124:136])
    if size is None:
        raise damaged(offset, f"its size {block[124:136]!r} is no number of bytes")
    name = text(block[:100])
    if kind == b"\0" and name.endswith("/"):
        kind = b"5"
    prefix = text(block[345:500]) if kind not in (b"L", b"K", GNU_SPARSE) else ""
    return Header(
        f"{prefix}/{name}" if prefix else name,
        kind,
        size if kind not in _WITHOUT_CONTENT else 0,
        kind == GNU_SPARSE and block[482] != 0,
    )


def _checked(block: bytes) -> bool:
    rest = block[: _CHECKSUM.start] + b" " * 8 + block[_CHECKSUM.stop :]
    written, unsigned = _number(block[_CHECKSUM]), sum(rest)
    # Sums of signed bytes were written once, too.
    return written == unsigned or written == unsigned - 256 * sum(byte > 127 for byte in rest)


def pax_records(data: bytes, offset: int) -> dict[bytes, bytes]:
    """What a PAX header at byte `offset` says, by its keywords. Raises tarfile.ReadError where it is damaged."""
    records: dict[bytes, bytes] = {}
    place = 0
    while place < len(data) and data[place]:
        space = data.find(b" ", place, place + 12)
        length = data[place : max(space, place)]
        end = place + int(length) if length.isdigit() else place
        keyword, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not (space + 1 < end <= len(data) and equals and data[end - 1 : end] == b"\n"):
            raise damaged(offset, f"its record at byte {place:,} is none: {data[place : place + 30]!r}")
        records[keyword] = value
        place = end
    return records


def pax_size(value: bytes, offset: int) -> int:
    """A size that a PAX header at byte `offset` gives. Raises tarfile.ReadError where it is none."""
    if not (value.isdigit() and len(value) <= 20):
        raise damaged(offset, f"its size {value[:30]!r} is no number of bytes")
    return int(value)


def text(field: bytes) -> str:
    """A name, up to its first zero byte."""
    return field.partition(b"\0")[0].decode(errors="surrogateescape")


def damaged(offset: int, reason: str = "") -> tarfile.ReadError:
    """The error for a header at byte `offset`."""
    if offset == 0 and not reason:
        return tarfile.ReadError("invalid header at byte 0")
    return tarfile.ReadError(f"the header at byte {offset:,} is damaged" + (f": {reason}" if reason else ""))


def _number(field: bytes) -> int | None:
    """The number in a field, octal or behind a first byte of 0x80 binary; None where it is none, or negative."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:])
    octal = _OCTAL.fullmatch(field.partition(b"\0")[0])
    return None if octal is None else int(octal[1] or b"0", 8)
