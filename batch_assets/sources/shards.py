"""Another pipeline's shards as files: what is committed under its output root, a Parquet file a shard.

A file's name is the shard's key, its version the digest of the data file that the commit marker
names now: a shard that is computed again is a touched file. Which shards there are is the plan's
business (`sharding/chained.py`), which pipeline a root belongs to is resolved in `components/`,
and who writes markers is in `embeddings/marker.py`.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

import pyarrow as pa
import pydantic

from batch_assets import paths
from batch_assets.errors import SourceError
from batch_assets.settings.source import SHARDS_SCHEME
from batch_assets.storage import (
    FileInfo,
    Output,
    Storage,
    VersionMismatch,
    join_uri,
    normalize_uri,
    open_storage,
    same_place,
)

RECORD_ID = "record_id"
# What the other pipeline's output says of itself: never read, least of all the vectors.
UNREAD = frozenset({"source_file", "source_row", "embedding", "token_count"})

_EXTENSION = ".parquet"


@dataclass(frozen=True)
class _DataFile:
    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class _Marker:
    """The part of a commit marker that reading takes."""

    shard: str
    fence: int
    files: list[_DataFile]
    run: int = 0


_MARKER = pydantic.TypeAdapter(_Marker)


def reads_shards_of(root: str, sources: Iterable[str]) -> bool:
    """Whether the shards under an output root are among these sources, however each is spelled."""
    return any(is_shards(uri) and same_place(uri.removeprefix(SHARDS_SCHEME), root) for uri in sources)


def is_shards(uri: str) -> bool:
    """Whether a source's URI means another pipeline's shards."""
    return uri.startswith(SHARDS_SCHEME)


def shard_file(key: str) -> str:
    """The name that a shard has as a file."""
    return key + _EXTENSION


def normalize_source(uri: str) -> str:
    """The one spelling of a source's URI (see `storage.normalize_uri`)."""
    if is_shards(uri):
        return SHARDS_SCHEME + normalize_uri(uri.removeprefix(SHARDS_SCHEME))
    return normalize_uri(uri)


def open_source(uri: str) -> Storage:
    """The storage that a source's files lie in; `shards:<output root>` is a ShardStorage."""
    if is_shards(uri):
        return ShardStorage(open_storage(uri.removeprefix(SHARDS_SCHEME)))
    return open_storage(uri)


class ShardStorage:
    """The committed shards under the output root `root`, as files to read; nothing can be written."""

    def __init__(self, root: Storage) -> None:
        self.root = root
        self.uri = SHARDS_SCHEME + root.uri

    def info(self, path: str) -> FileInfo | None:
        file = self._committed(path)
        return None if file is None else FileInfo(path, file.bytes, file.sha256)

    def read(self, path: str) -> bytes:
        return self.root.read(self._data_file(path).path)

    def read_versioned(self, path: str) -> tuple[bytes, str] | None:
        file = self._committed(path)
        return None if file is None else (self.root.read(file.path), file.sha256)

    def stream(
        self, path: str, start: int = 0, end: int | None = None, version: str | None = None
    ) -> Iterator[bytes]:
        yield from self.root.stream(self._data_file(path, version).path, start, end)
        self._data_file(path, version)

    def open_input(self, path: str) -> pa.NativeFile:
        return self.root.open_input(self._data_file(path).path)

    def _data_file(self, path: str, version: str | None = None) -> _DataFile:
        file = self._committed(path)
        if file is None:
            raise FileNotFoundError(join_uri(self.uri, path))
        if version is not None and file.sha256 != version:
            raise VersionMismatch(path)
        return file

    def _committed(self, path: str) -> _DataFile | None:
        """The embedded records' file that the shard's marker names now; None where nothing is committed."""
        key = path.removesuffix(_EXTENSION)
        if "/" in path or key == path:
            return None
        found = self.root.read_versioned(paths.shard_marker(key))
        if found is None:
            return None
        try:
            marker = _MARKER.validate_json(found[0])
        except pydantic.ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            raise self._unreadable(paths.shard_marker(key), reason) from None
        name = paths.embeddings(key, marker.fence, marker.run)
        file = next((file for file in marker.files if file.path == name), None)
        if file is None or marker.shard != key:
            raise self._unreadable(paths.shard_marker(key), f"it does not name {name}")
        return file

    def _unreadable(self, path: str, reason: str) -> SourceError:
        return SourceError(
            f"{join_uri(self.root.uri, path)}: cannot be read as another pipeline's ({reason}); "
            "`batch-assets verify` on that output root tells what is wrong there"
        )

    def list(self, prefix: str = "", after: str | None = None) -> Iterator[FileInfo]:
        raise io.UnsupportedOperation(f"{self.uri}: which shards there are, the plan says")

    def create(self, path: str, data: bytes) -> NoReturn:
        self._refuse(path)

    def replace(self, path: str, data: bytes, version: str) -> NoReturn:
        self._refuse(path)

    def write(self, path: str, data: bytes) -> NoReturn:
        self._refuse(path)

    def open_output(self, path: str) -> Output:
        self._refuse(path)

    def copy(self, source: str, target: str) -> NoReturn:
        self._refuse(target)

    def delete(self, paths: Sequence[str]) -> None:
        self._refuse(", ".join(paths))

    def _refuse(self, path: str) -> NoReturn:
        raise io.UnsupportedOperation(f"{join_uri(self.uri, path)}: another pipeline's shards are only read")
