"""A folder of this machine, or of a network file system with locks."""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from batch_assets.storage.base import CHUNK_BYTES, FileInfo, Output, VersionMismatch, refuse_large
from batch_assets.storage.local_files import explained, open_regular, refuse_irregular
from batch_assets.storage.locks import locked
from batch_assets.storage.temporary import make_temporary

_READ_BYTES = 2**20  # more is no faster here, and twice as much waits in memory
_OTHER_ROOT = "mount it with locks, or name an output root on a local disk or in an object store"
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}


class LocalStorage:
    """Files below the folder `uri` (an absolute path)."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._root = Path(uri)

    def _path(self, path: str) -> Path:
        return self._root / path if path else self._root

    def read(self, path: str) -> bytes:
        with explained(self._path(path)), open_regular(self._path(path)) as file:
            refuse_large(str(self._path(path)), os.fstat(file.fileno()).st_size)
            return file.readall()

    def read_versioned(self, path: str) -> tuple[bytes, str] | None:
        try:
            data = self.read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return data, hashlib.sha256(data).hexdigest()

    def stream(
        self, path: str, start: int = 0, end: int | None = None, version: str | None = None
    ) -> Iterator[bytes]:
        with explained(self._path(path)), open_regular(self._path(path)) as file:
            status = os.fstat(file.fileno())
            _demand(path, status, version)
            file.seek(start)
            left = (status.st_size if end is None else end) - start
            while left > 0 and (chunk := file.read(min(_READ_BYTES, left))):
                left -= len(chunk)
                yield chunk
            _demand(path, os.fstat(file.fileno()), version)

    def create(self, path: str, data: bytes) -> bool:
        target = self._path(path)
        with explained(target), _temporary_with(target, data) as temporary:
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                # No hard links here: whoever holds the file's lock may look, then rename.
                with locked(target, _OTHER_ROOT):
                    if target.exists():
                        return False
                    os.replace(temporary, target)
        _sync_folder(target.parent)
        return True

    def replace(self, path: str, data: bytes, version: str) -> bool:
        target = self._path(path)
        if not target.parent.is_dir():
            return False
        with explained(target), locked(target, _OTHER_ROOT):
            found = self.read_versioned(path)
            if found is None or found[1] != version:
                return False
            self.write(path, data)
        return True

    def write(self, path: str, data: bytes) -> None:
        target = self._path(path)
        with explained(target), _temporary_with(target, data) as temporary:
            os.replace(temporary, target)
        _sync_folder(target.parent)

    def open_input(self, path: str) -> pa.NativeFile:
        with explained(self._path(path)):
            refuse_irregular(self._path(path), os.stat(self._path(path)))
            return pa.OSFile(str(self._path(path)), "rb")

    def open_output(self, path: str) -> Output:
        return _LocalOutput(self._path(path))

    def info(self, path: str) -> FileInfo | None:
        try:
            with explained(self._path(path)):
                status = self._path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _info(path, status) if self._path(path).is_file() else None

    def list(self, prefix: str = "", after: str | None = None) -> Iterator[FileInfo]:
        for path, full in self._walk(prefix, after, frozenset()):
            if os.path.isfile(full):
                with contextlib.suppress(FileNotFoundError):  # deleted since
                    status = os.stat(full)
                    yield _info(path, status)

    def dangling_links(self) -> Iterator[tuple[str, str]]:
        """The symbolic links that lead to nothing, which no listing has, each with what it names."""
        for path, full in self._walk("", None, frozenset()):
            if os.path.islink(full) and not os.path.exists(full):
                with contextlib.suppress(OSError):  # replaced since
                    yield path, os.readlink(full)

    def _walk(
        self, folder: str, after: str | None, above: frozenset[tuple[int, int]]
    ) -> Iterator[tuple[str, str]]:
        """All below a folder that is no folder itself, with its place on the disk."""
        try:
            status = self._path(folder).stat()
            here = (status.st_dev, status.st_ino)
            if here in above:  # a symbolic link that leads back up
                return
            entries = list(os.scandir(self._path(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return
        # A folder sorts as if its name ended in "/", so that paths come out in full order.
        named = sorted((entry.name + ("/" if entry.is_dir() else ""), entry.path) for entry in entries)
        for name, full in named:
            path = f"{folder}/{name}" if folder else name
            if name.endswith("/"):
                if after is None or path > after or after.startswith(path):
                    yield from self._walk(path[:-1], after, above | {here})
            elif after is None or path > after:
                yield path, full

    def copy(self, source: str, target: str) -> None:
        path = self._path(source)
        with explained(path), open_regular(path) as file, self.open_output(target) as output:
            shutil.copyfileobj(file, output, CHUNK_BYTES)

    def delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                self._path(path).unlink()


class _LocalOutput:
    """Written under a hidden name beside its own, which it gets at `close`."""

    def __init__(self, target: Path) -> None:
        self._target = target
        with explained(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, self._temporary = make_temporary(target)
        self._file = os.fdopen(handle, "wb")

    @property
    def closed(self) -> bool:
        return self._file.closed

    def write(self, data: bytes | memoryview, /) -> int:
        with explained(self._target):
            return self._file.write(data)

    def flush(self) -> None:
        with explained(self._target):
            self._file.flush()

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if self._file.closed:
            return
        try:
            with explained(self._target):
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                os.replace(self._temporary, self._target)
        except BaseException:
            self.abort()
            raise
        _sync_folder(self._target.parent)

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif not self.closed:
            self.abort()


def _info(path: str, status: os.stat_result) -> FileInfo:
    return FileInfo(path, status.st_size, _version(status), status.st_mtime)


def _version(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns}-{status.st_size}"


def _demand(path: str, status: os.stat_result, version: str | None) -> None:
    if version is not None and _version(status) != version:
        raise VersionMismatch(path)


@contextlib.contextmanager
def _temporary_with(target: Path, data: bytes) -> Iterator[str]:
    """A synced file with `data` beside `target`; removed at the end if it is still there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = make_temporary(target)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
