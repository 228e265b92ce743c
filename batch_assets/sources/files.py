"""Opening source files: checked to be the planned version, decompressed, faults in a person's words."""

import contextlib
import io
import os
from collections.abc import Iterator

import pyarrow as pa

from batch_assets.errors import SourceError, StorageError, UnreadableFile
from batch_assets.plain_text import first_line
from batch_assets.storage import CHUNK_BYTES, Storage, VersionMismatch, join_uri

LEAVE_OUT = "leave it out by source.exclude (a table's files cannot be)"
_WINDOW = "requires too much memory"  # zstd's words: no damage
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


def open_stream(
    storage: Storage, path: str, first_byte: int, last_byte: int, version: str
) -> Iterator[bytes]:
    """Bytes of a file in chunks. Raises SourceError where it is missing or another version."""
    with explained(storage, path):
        yield from storage.stream(path, first_byte, last_byte, version)


@contextlib.contextmanager
def explained(storage: Storage, path: str) -> Iterator[None]:
    """Say of a file that it is missing, changed or not readable."""
    uri = join_uri(storage.uri, path)
    try:
        yield
    except VersionMismatch:
        raise touched(storage, path) from None
    except FileNotFoundError:
        raise SourceError(
            f"{uri}: is missing since it was planned; put it back, or take its shards out by `plan --replace`"
        ) from None
    except PermissionError as error:
        raise SourceError(
            f"{uri}: cannot be read ({error.strerror}); allow it, or move the file away"
        ) from None


def touched(storage: Storage, path: str) -> SourceError:
    """The error for a file that is another version than the plan's."""
    return SourceError(
        f"{join_uri(storage.uri, path)}: touched since it was planned; put the planned version back, or "
        "`plan --replace` plans the file anew in place of its old shards"
    )


def broken(storage: Storage, path: str, what: str, error: Exception) -> UnreadableFile | StorageError:
    """The error for a file that is not what its name says.

    What a decoder says of damaged content has no errno: with one, this machine could not read a file that may be good.
    """
    uri = join_uri(storage.uri, path)
    if isinstance(error, OSError) and error.errno is not None:
        return StorageError(
            f"{uri}: {os.strerror(error.errno)}; check the disk, then go on with the same command"
        )
    return UnreadableFile(f"{uri}: is no whole {what} file ({first_line(error)}); replace it, or {LEAVE_OUT}")


def no_memory(storage: Storage, path: str, error: Exception) -> StorageError:
    """The error for a file that this machine has no memory to decode."""
    return StorageError(
        f"{join_uri(storage.uri, path)}: {first_line(error)}; let what else runs here end, or give this "
        f"machine more memory, then go on with the same command; or {LEAVE_OUT}"
    )


def decompressed(storage: Storage, path: str, size: int, version: str) -> Iterator[bytes]:
    """A whole file's content in chunks, decompressed as its name asks for; several members make one.

    Raises SourceError where the compressed stream ends early or is damaged; StorageError where the machine is at fault.
    """
    chunks = open_stream(storage, path, 0, size, version)
    codec = next((codec for suffix, codec in COMPRESSIONS.items() if path.lower().endswith(suffix)), None)
    if codec is None:
        yield from chunks
        return
    try:
        with pa.CompressedInputStream(pa.PythonFile(_ChunkFile(chunks), mode="r"), codec) as stream:
            while data := stream.read(CHUNK_BYTES):
                yield data
    except pa.ArrowMemoryError as error:
        raise no_memory(storage, path, error) from error
    except OSError as error:
        if _WINDOW in str(error):
            raise UnreadableFile(
                f"{join_uri(storage.uri, path)}: needs more than 128 MiB of memory to be decompressed, as after "
                "`zstd --long=28` or more; compress it anew with at most --long=27"
            ) from error
        raise broken(storage, path, codec, error) from error


class _ChunkFile(io.RawIOBase):
    """Chunks as a file to be read front to back."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return b"".join([bytes(self._rest), *self._chunks])
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = memoryview(chunk)
        data, self._rest = self._rest[:size], self._rest[size:]
        return bytes(data)
