"""Tar files read where they lie: what members they have, and where; no image data is copied.

Python's tarfile reads the headers (GNU's and PAX's long names too). It ends quietly at a damaged
header; whether that was the end of the archive is checked here. What members make up a sample is
in `samples.py`.
"""

import contextlib
import io
import tarfile
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, cast

from batch_assets.sources.files import open_stream
from batch_assets.storage import FileInfo, Storage, is_local
from batch_assets.storage.threads import map_in_order

_LOCAL_BLOCK = 16 * 2**10  # a header or two, and what little text is between them
_REMOTE_BLOCK = 4 * 2**20
_REMOTE_THREADS = 4
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

    Raises tarfile.ReadError where the tar is damaged or ends too early. That its end marks are
    missing, or the padding of its last file, is no damage.
    """
    _refuse_compressed(reader)
    tar = tarfile.TarFile(fileobj=reader, mode="r")
    end = 0
    while True:
        try:
            member = tar.next()
        except tarfile.ReadError:
            if end <= size < tar.offset:
                return
            raise
        if member is None:
            break
        cast("Any", tar).members.clear()  # else it would keep them all
        end = member.offset_data + member.size
        if member.isreg() and not member.issparse():
            yield TarMember(member.name, member.offset_data, member.size)
    _check_end(reader, tar.offset)


def _refuse_compressed(reader: BlockReader) -> None:
    head = reader.read(8)
    for magic, name in _MAGICS.items():
        if head.startswith(magic):
            raise tarfile.ReadError(f"it is compressed by {name}, so no member can be reached; unpack it")
    reader.seek(0)


def _check_end(reader: BlockReader, offset: int) -> None:
    """Demand that nothing follows the place where tarfile has found no further header."""
    reader.seek(offset)
    mark = reader.read(tarfile.BLOCKSIZE)
    if mark.strip(b"\0"):
        raise tarfile.ReadError(f"the header at byte {offset:,} is damaged")
    while rest := reader.read(2**20):
        if rest.strip(b"\0"):
            raise tarfile.ReadError(
                f"more data follows the end mark at byte {offset:,}, as in tars put together by `cat`; "
                "pack it anew"
            )
