"""Tar files read where they lie: what members they have, and where; no image data is copied.

Python's tarfile believes a header: it goes back for a negative size, reads a name of any length, and
ends quietly at a damaged header. So the headers, GNU's and PAX's too, are walked here. What they
say is in `tar_headers.py`, what members make up a sample in `samples.py`.
"""

import contextlib
import io
import tarfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, cast

from batch_assets.sources.files import open_stream
from batch_assets.sources.tar_headers import (
    BLOCK,
    LONG_NAME,
    PAX,
    REGULAR,
    Header,
    damaged,
    parse_header,
    pax_records,
    pax_size,
    text,
)
from batch_assets.storage import FileInfo, Storage, is_local
from batch_assets.storage.threads import map_in_order

_LOCAL_BLOCK = 16 * 2**10  # a header or two, and what little text is between them
_REMOTE_BLOCK = 4 * 2**20
_REMOTE_THREADS = 4
_LONGEST_HEADER = 2**20  # attributes, of which each file may have many
_LONGEST_NAME = 64 * 2**10  # no system opens a path of more than 4 KiB
_MAGICS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


class TarMember(NamedTuple):
    """A regular file in a tar: its name, and where its content lies in the tar, in bytes."""

    name: str
    offset: int
    size: int


class BlockReader(io.RawIOBase):
    """A file that is read by the block, mostly forward.

    `fetch(start, end)` reads bytes of it. `ahead`, if given, are all its blocks in order: they are
    taken one by one, the ones between are passed over.
    """

    def __init__(
        self, size: int, fetch: Callable[[int, int], bytes], block: int, ahead: Iterator[bytes] | None
    ) -> None:
        self._size = size
        self._fetch = fetch
        self._block = block
        self._ahead = ahead
        self._start, self._data = 0, b""
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """As many bytes as are asked for, fewer only at the end of the file."""
        end = self._size if size < 0 else min(self._position + size, self._size)
        parts: list[bytes] = []
        while self._position < end:
            part = self._part(end)
            parts.append(part)
            self._position += len(part)
        return b"".join(parts)

    def _part(self, end: int) -> bytes:
        """What the block at the position has of the bytes before `end`."""
        if self._ahead is None and not self._start <= self._position < self._start + len(self._data):
            self._start = self._position
            self._data = self._fetch(self._start, min(self._start + self._block, self._size))
        elif self._position < self._start:
            return self._fetch(self._position, end)
        while self._ahead is not None and self._position >= self._start + len(self._data):
            self._start += len(self._data)
            self._data = next(self._ahead)
        return self._data[self._position - self._start : end - self._start]


@contextlib.contextmanager
def open_blocks(storage: Storage, file: FileInfo) -> Iterator[BlockReader]:
    """A file to walk through: on this machine only what is asked for is read, elsewhere all, some blocks ahead."""

    def fetch(start: int, end: int) -> bytes:
        return b"".join(open_stream(storage, file.path, start, end, file.version))

    if is_local(storage.uri):
        yield BlockReader(file.size, fetch, _LOCAL_BLOCK, None)
        return
    starts = range(0, file.size, _REMOTE_BLOCK)
    blocks = map_in_order(
        lambda start: fetch(start, min(start + _REMOTE_BLOCK, file.size)), starts, _REMOTE_THREADS
    )
    with contextlib.closing(cast("Generator[bytes]", blocks)) as ahead:
        yield BlockReader(file.size, fetch, _REMOTE_BLOCK, ahead)


def tar_members(reader: BlockReader, size: int) -> Iterator[TarMember]:
    """The regular files of a tar of `size` bytes, in order; links, folders and sparse files are passed over.

    Each step leads on by a header at least, and never behind the end of the tar. Raises
    tarfile.ReadError where the tar is damaged or ends too early. That its end marks are missing, or
    the padding of its last file, is no damage.
    """
    _refuse_compressed(reader)
    if not size:
        raise tarfile.ReadError("empty file")
    offset = 0
    following = _Following()
    while (block := _read(reader, offset, BLOCK)).strip(b"\0") and len(block) == BLOCK:
        header = parse_header(block, offset)
        start = offset + BLOCK
        further = header.extended
        while further:
            block = _read(reader, start, BLOCK)
            if len(block) < BLOCK:
                raise tarfile.ReadError(f"unexpected end of data in the sparse file at byte {offset:,}")
            start += BLOCK
            further = block[504] != 0
        length = header.size
        if header.is_member and header.has_content and following.size is not None:
            length = following.size
        if start + length > size:
            raise tarfile.ReadError(
                f"unexpected end of data: {length:,} bytes should follow byte {start:,}, and {size - start:,} do"
            )
        if not header.is_member:
            following.take(header, offset, partial(_read, reader, start, length))
        else:
            if header.kind in REGULAR and not following.sparse:
                yield TarMember(following.name or header.name, start, length)
            following = _Following()
        offset = start + -(-length // BLOCK) * BLOCK
    if following.announced:
        raise tarfile.ReadError(f"unexpected end of data: no member follows its name before byte {offset:,}")
    _check_end(reader, offset)


@dataclass
class _Following:
    """What headers before a member say of it: the first word on each counts."""

    name: str | None = None
    size: int | None = None
    sparse: bool = False
    announced: bool = False

    def take(self, header: Header, offset: int, read: Callable[[], bytes]) -> None:
        """Take a header at byte `offset`, whose data `read` gives."""
        if header.kind != LONG_NAME and header.kind not in PAX:
            return
        self.announced = True
        if header.size > (_LONGEST_NAME if header.kind == LONG_NAME else _LONGEST_HEADER):
            raise damaged(offset, f"it announces a name or attributes of {header.size:,} bytes")
        if header.kind == LONG_NAME:
            self.name = text(read()) if self.name is None else self.name
            return
        records = pax_records(read(), offset)
        if len(records.get(b"path", b"")) > _LONGEST_NAME:
            raise damaged(offset, f"it announces a name of {len(records[b'path']):,} bytes")
        if b"path" in records and self.name is None:
            self.name = records[b"path"].decode(errors="surrogateescape").rstrip("/")
        if b"size" in records and self.size is None:
            self.size = pax_size(records[b"size"], offset)
        self.sparse |= any(keyword.startswith(b"GNU.sparse.") for keyword in records)


def _read(reader: BlockReader, offset: int, length: int) -> bytes:
    reader.seek(offset)
    return reader.read(length)


def _refuse_compressed(reader: BlockReader) -> None:
    head = reader.read(8)
    for magic, name in _MAGICS.items():
        if head.startswith(magic):
            raise tarfile.ReadError(f"it is compressed by {name}, so no member can be reached; unpack it")
    reader.seek(0)


def _check_end(reader: BlockReader, offset: int) -> None:
    """Demand that nothing follows the place where tarfile has found no further header."""
    reader.seek(offset)
    mark = reader.read(BLOCK)
    if mark.strip(b"\0"):
        raise tarfile.ReadError(f"the header at byte {offset:,} is damaged")
    while rest := reader.read(2**20):
        if rest.strip(b"\0"):
            raise tarfile.ReadError(
                f"more data follows the end mark at byte {offset:,}, as in tars put together by `cat`; "
                "pack it anew"
            )
