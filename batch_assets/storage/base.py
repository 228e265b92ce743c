"""What a storage is, and the one spelling of a URI. The two kinds stand beside this file."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import unquote

import pyarrow as pa

from batch_assets.errors import ConfigurationError, LastingStorageError
from batch_assets.home import expand_user

OBJECT_SCHEMES = ("s3", "gs", "az")
CHUNK_BYTES = 8 * 2**20
MOST_READ_WHOLE = 512 * 2**20
"""Of what is read into memory as a whole, such as markers, manifests and plans."""


class VersionMismatch(Exception):
    """A file is no longer at the version that was asked for."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file: `path` relative to the storage's URI, `version` changes whenever its content does.

    `modified` is when it was written last (unix seconds), by the storage's own clock; None: it does not say.
    """

    path: str
    size: int
    version: str
    modified: float | None = field(default=None, compare=False)


class Output(Protocol):
    """A file being written, front to back.

    Nobody sees it before `close` has returned; then it is whole and durable. `abort`, an
    exception inside `with`, or the end of the process leave no file under its name.
    """

    @property
    def closed(self) -> bool: ...
    def write(self, data: bytes | memoryview, /) -> int: ...
    def flush(self) -> None: ...
    def tell(self) -> int: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Storage(Protocol):
    """Files under `uri`; every path is relative to it. A missing file raises FileNotFoundError.

    What a person can mend (no access, no such bucket, no network) is a ConfigurationError or
    a StorageError; where time does not mend the latter, a LastingStorageError.
    """

    uri: str

    def read(self, path: str) -> bytes:
        """All bytes of a small file; StorageError where it has more than `MOST_READ_WHOLE`."""
        ...

    def read_versioned(self, path: str) -> tuple[bytes, str] | None:
        """The content and its version, or None where there is no such file."""
        ...

    def stream(
        self, path: str, start: int = 0, end: int | None = None, version: str | None = None
    ) -> Iterator[bytes]:
        """The bytes from `start` up to `end` (exclusive; None: to the end), in chunks of at most 8 MiB.

        With `version` (of `info` or `list`), raises VersionMismatch where the file has another
        one, before the first byte or after the last: what was read is of that version or void.
        """
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Write the file if there is none, whole or not at all; False if there is one."""
        ...

    def replace(self, path: str, data: bytes, version: str) -> bool:
        """Write the file if it is still at `version` (of `read_versioned`); False if it is not."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Write the file whole or not at all, whatever was there."""
        ...

    def open_input(self, path: str) -> pa.NativeFile:
        """A seekable file for pyarrow."""
        ...

    def open_output(self, path: str) -> Output:
        """A file to write once, front to back; it exists when `close` has returned."""
        ...

    def info(self, path: str) -> FileInfo | None: ...
    def list(self, prefix: str = "", after: str | None = None) -> Iterator[FileInfo]:
        """Files in the folder `prefix`, at any depth, ordered by path, those behind `after`."""
        ...

    def copy(self, source: str, target: str) -> None:
        """Copy a file within this storage without changing it, whole or not at all."""
        ...

    def delete(self, paths: Sequence[str]) -> None:
        """Delete files; one that is missing is no error."""
        ...


def normalize_uri(uri: str) -> str:
    """The one spelling of a URI: local paths absolute and bare, no slash at the end.

    Raises ConfigurationError for a scheme that no storage serves, for what is not UTF-8 or holds a NUL character, and
    for a `~` that is nowhere.
    """
    if "\0" in (unquote(uri) if uri[:7].lower() == "file://" else uri):
        raise ConfigurationError(f"{uri!r}: holds a NUL character, which no path can; remove it")
    try:
        uri.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"{uri!r}: is not UTF-8; rename it, or choose a locale of UTF-8, such as LC_ALL=C.UTF-8"
        ) from None
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", uri)
    if match is None:
        return os.path.abspath(expand_user(uri))
    scheme = match[1].lower()
    if scheme == "file":
        host, slash, path = uri[match.end() :].partition("/")
        if host not in ("", "localhost") or not slash:
            raise ConfigurationError(
                f"{uri!r}: names no file of this machine; write file:///folder, with three slashes"
            )
        return os.path.abspath("/" + unquote(path))
    if scheme not in OBJECT_SCHEMES:
        known = ", ".join(f"{name}://" for name in OBJECT_SCHEMES)
        raise ConfigurationError(f"{uri!r}: cannot read {scheme}://; use a local path, file://, {known}")
    rest = uri[match.end() :].rstrip("/")
    if not rest or rest.startswith("/"):
        raise ConfigurationError(f"{uri!r}: names no bucket; write {scheme}://bucket/path")
    if any(part in ("", ".", "..") for part in rest.split("/")):
        raise ConfigurationError(f"{uri!r}: has an empty part, '.' or '..'; write the path without it")
    return f"{scheme}://{rest}"


def real_uri(uri: str) -> str:
    """The one place that a URI means, whatever symbolic links lead there."""
    uri = normalize_uri(uri)
    return os.path.realpath(uri) if is_local(uri) else uri


def same_place(one: str, other: str) -> bool:
    """Whether two URIs mean one place, however they are spelled."""
    return one == other or real_uri(one) == real_uri(other)


def refuse_large(uri: str, size: int) -> None:
    """Raise StorageError for a file that is too large to be read whole: it would fill the memory."""
    if size > MOST_READ_WHOLE:
        raise LastingStorageError(
            f"{uri}: has {size:,} bytes, but is read whole, up to {MOST_READ_WHOLE:,}; restore it from a copy"
        )


def is_local(uri: str) -> bool:
    """Whether a normalized URI is a path of this machine."""
    return "://" not in uri


def join_uri(uri: str, path: str) -> str:
    """`path` under `uri`, as a URI."""
    return f"{uri.rstrip('/')}/{path}" if path else uri
