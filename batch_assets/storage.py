"""Files under one URI, the same on a local disk and on an object store.

What belongs here: reading, streaming, listing, and the two conditional writes that commit
markers rest on (`create`, `replace`). Which file lies where is in `paths.py`; what a file
means, in the module that writes it. Object stores are reached through obstore, a local disk
through the operating system: obstore's local store has no compare-and-set.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast
from urllib.parse import unquote, urlparse

import pyarrow as pa

from batch_assets.errors import ConfigurationError

OBJECT_SCHEMES = ("s3", "gs", "az")
CHUNK_BYTES = 8 * 2**20


@dataclass(frozen=True)
class FileInfo:
    """One file: `path` relative to the storage's URI, `version` changes whenever its content does."""

    path: str
    size: int
    version: str


class Storage(Protocol):
    """Files under `uri`; every path is relative to it. A missing file raises FileNotFoundError."""

    uri: str

    def read(self, path: str) -> bytes: ...
    def read_versioned(self, path: str) -> tuple[bytes, str] | None:
        """The content and its version, or None where there is no such file."""
        ...

    def stream(self, path: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to `end` (exclusive; None: to the end), in chunks."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Write the file if there is none, whole or not at all; False if there is one."""
        ...

    def replace(self, path: str, data: bytes, version: str) -> bool:
        """Write the file if it is still at `version`; False if it is not."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Write the file whole or not at all, whatever was there."""
        ...

    def open_input(self, path: str) -> pa.NativeFile:
        """A seekable file for pyarrow."""
        ...

    def open_output(self, path: str) -> Any:
        """A file object to write once, front to back; durable once `close` has returned."""
        ...

    def info(self, path: str) -> FileInfo | None: ...
    def list(self, prefix: str = "", after: str | None = None) -> Iterator[FileInfo]:
        """Files in the folder `prefix`, at any depth, ordered by path, those behind `after`."""
        ...

    def copy(self, source: str, target: str) -> None:
        """Copy a file within this storage without changing it."""
        ...

    def delete(self, paths: Sequence[str]) -> None:
        """Delete files; one that is missing is no error."""
        ...


def normalize_uri(uri: str) -> str:
    """The one spelling of a URI: local paths absolute and bare, no slash at the end.

    Raises ConfigurationError for a scheme that no storage serves.
    """
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", uri)
    if match is None:
        return os.path.abspath(os.path.expanduser(uri))
    scheme = match[1].lower()
    if scheme == "file":
        return os.path.abspath(unquote(urlparse(uri).path))
    if scheme not in OBJECT_SCHEMES:
        known = ", ".join(f"{name}://" for name in OBJECT_SCHEMES)
        raise ConfigurationError(f"{uri!r}: cannot read {scheme}://; use a local path, file://, {known}")
    rest = uri[match.end() :].rstrip("/")
    if not rest or rest.startswith("/"):
        raise ConfigurationError(f"{uri!r}: names no bucket; write {scheme}://bucket/path")
    return f"{scheme}://{rest}"


def is_local(uri: str) -> bool:
    """Whether a normalized URI is a path of this machine."""
    return "://" not in uri


def join_uri(uri: str, path: str) -> str:
    """`path` under `uri`, as a URI."""
    return f"{uri.rstrip('/')}/{path}" if path else uri


def open_storage(uri: str) -> Storage:
    """The storage of a URI, whatever its spelling. Nothing is created or contacted yet."""
    uri = normalize_uri(uri)
    return LocalStorage(uri) if is_local(uri) else ObjectStorage(uri)


class LocalStorage:
    """A folder of this machine (or of a network file system with locks)."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._root = Path(uri)

    def _path(self, path: str) -> Path:
        return self._root / path if path else self._root

    def read(self, path: str) -> bytes:
        return self._path(path).read_bytes()

    def read_versioned(self, path: str) -> tuple[bytes, str] | None:
        try:
            data = self._path(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return data, hashlib.sha256(data).hexdigest()

    def stream(self, path: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        with self._path(path).open("rb", buffering=0) as file:
            file.seek(start)
            left = (os.fstat(file.fileno()).st_size if end is None else end) - start
            while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
                left -= len(chunk)
                yield chunk

    def create(self, path: str, data: bytes) -> bool:
        target = self._path(path)
        with self._temporary(target, data) as temporary:
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
        _sync_folder(target.parent)
        return True

    def replace(self, path: str, data: bytes, version: str) -> bool:
        target = self._path(path)
        with _locked(target.parent):
            found = self.read_versioned(path)
            if found is None or found[1] != version:
                return False
            self.write(path, data)
        return True

    def write(self, path: str, data: bytes) -> None:
        target = self._path(path)
        with self._temporary(target, data) as temporary:
            os.replace(temporary, target)
        _sync_folder(target.parent)

    @contextlib.contextmanager
    def _temporary(self, target: Path, data: bytes) -> Iterator[str]:
        """A synced file with `data` beside `target`; removed at the end if it is still there."""
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            yield temporary
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

    def open_input(self, path: str) -> pa.NativeFile:
        return pa.OSFile(str(self._path(path)), "rb")

    def open_output(self, path: str) -> Any:
        target = self._path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        return _SyncedFile(target)

    def info(self, path: str) -> FileInfo | None:
        try:
            status = self._path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return FileInfo(path, status.st_size, f"{status.st_mtime_ns}-{status.st_size}")

    def list(self, prefix: str = "", after: str | None = None) -> Iterator[FileInfo]:
        yield from self._walk(prefix, after)

    def _walk(self, folder: str, after: str | None) -> Iterator[FileInfo]:
        try:
            entries = list(os.scandir(self._path(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return
        # A folder sorts as if its name ended in "/", so that paths come out in full order.
        named = sorted((entry.name + ("/" if entry.is_dir() else ""), entry) for entry in entries)
        for name, entry in named:
            path = f"{folder}/{name}" if folder else name
            if name.endswith("/"):
                if after is None or path > after or after.startswith(path):
                    yield from self._walk(path[:-1], after)
            elif after is None or path > after:
                status = entry.stat()
                yield FileInfo(path, status.st_size, f"{status.st_mtime_ns}-{status.st_size}")

    def copy(self, source: str, target: str) -> None:
        to = self._path(target)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._path(source), to)
        with to.open("rb") as file:
            os.fsync(file.fileno())

    def delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                self._path(path).unlink()


class _SyncedFile:
    """A new local file whose content is on the disk when `close` returns."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb")

    def write(self, data: Any) -> int:
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def tell(self) -> int:
        return self._file.tell()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def close(self) -> None:
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which dies with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class ObjectStorage:
    """A prefix of a bucket: S3, Google Cloud Storage or Azure, by obstore."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        bucket, _, self._prefix = uri.split("://", 1)[1].partition("/")
        self._store = _open_bucket(uri.split("://", 1)[0], bucket)

    def _path(self, path: str) -> str:
        return "/".join(part for part in (self._prefix, path) if part)

    def read(self, path: str) -> bytes:
        import obstore

        return bytes(obstore.get(self._store, self._path(path)).bytes())

    def read_versioned(self, path: str) -> tuple[bytes, str] | None:
        import obstore

        try:
            result = obstore.get(self._store, self._path(path))
        except FileNotFoundError:
            return None
        return bytes(result.bytes()), str(result.meta["e_tag"])

    def stream(self, path: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        import obstore

        if end is not None and end <= start:
            return
        wanted = {"offset": start} if end is None else (start, end)
        result = obstore.get(self._store, self._path(path), options=cast("Any", {"range": wanted}))
        for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
            yield bytes(chunk)

    def create(self, path: str, data: bytes) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError

        try:
            obstore.put(self._store, self._path(path), data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        return True

    def replace(self, path: str, data: bytes, version: str) -> bool:
        import obstore
        from obstore.exceptions import NotFoundError, PreconditionError

        mode = cast("Any", {"e_tag": version})
        try:
            obstore.put(self._store, self._path(path), data, mode=mode, use_multipart=False)
        except (PreconditionError, NotFoundError, FileNotFoundError):
            return False
        return True

    def write(self, path: str, data: bytes) -> None:
        import obstore

        obstore.put(self._store, self._path(path), data)

    def open_input(self, path: str) -> pa.NativeFile:
        import obstore

        return pa.PythonFile(obstore.open_reader(self._store, self._path(path)), mode="r")

    def open_output(self, path: str) -> Any:
        import obstore

        return obstore.open_writer(self._store, self._path(path))

    def info(self, path: str) -> FileInfo | None:
        import obstore

        try:
            meta = obstore.head(self._store, self._path(path))
        except FileNotFoundError:
            return None
        return FileInfo(path, meta["size"], str(meta["e_tag"]))

    def list(self, prefix: str = "", after: str | None = None) -> Iterator[FileInfo]:
        import obstore

        folder = self._path(prefix)
        skip = len(self._prefix) + 1 if self._prefix else 0
        offset = self._path(after) if after is not None else None
        for page in obstore.list(self._store, folder or None, offset=offset):
            for meta in page:
                yield FileInfo(meta["path"][skip:], meta["size"], str(meta["e_tag"]))

    def copy(self, source: str, target: str) -> None:
        import obstore

        obstore.copy(self._store, self._path(source), self._path(target))

    def delete(self, paths: Sequence[str]) -> None:
        import obstore

        with contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, [self._path(path) for path in paths])


def _open_bucket(scheme: str, bucket: str) -> Any:
    from obstore.store import AzureStore, GCSStore, S3Store

    if scheme == "gs":
        return GCSStore(bucket)
    if scheme == "az":
        return AzureStore(bucket)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    options: dict[str, Any] = {}
    if endpoint:
        options["endpoint"] = endpoint
    if endpoint.startswith("http://"):
        options["client_options"] = {"allow_http": True}
    if not os.environ.get("AWS_ACCESS_KEY_ID"):
        # Profiles, SSO and roles are botocore's business; obstore alone knows only the environment.
        from obstore.auth.boto3 import Boto3CredentialProvider

        options["credential_provider"] = Boto3CredentialProvider()
    if region := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
        options["region"] = region
    return S3Store(bucket, **options)
