"""A prefix of a bucket: S3, Google Cloud Storage or Azure, by obstore."""

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import pyarrow as pa

from batch_assets.errors import BatchAssetsError, ConfigurationError, LastingStorageError
from batch_assets.storage.base import CHUNK_BYTES, FileInfo, Output, VersionMismatch, join_uri, refuse_large
from batch_assets.storage.buckets import bucket_of
from batch_assets.storage.object_errors import explain, is_silent_refusal, refused_settings
from batch_assets.storage.object_files import ObjectInput, ObjectOutput
from batch_assets.storage.reach import is_away
from batch_assets.storage.threads import map_in_order, threads_for

Made = TypeVar("Made")
MOST_COPIED_BY_S3 = 5 * 2**30
"""More it copies in parts only, which obstore does not ask for: such bytes go through this machine."""


class ObjectStorage:
    """Objects whose keys begin with the prefix in `uri` (scheme://bucket/prefix)."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        scheme, _, rest = uri.partition("://")
        bucket, _, self._prefix = rest.partition("/")
        self._bucket = f"{scheme}://{bucket}"
        self._scheme = scheme
        try:
            self._bucket_at = bucket_of(scheme, bucket)
        except BatchAssetsError:
            raise
        except Exception as error:
            raise refused_settings(uri, error) from error
        self._store, self._reach = self._bucket_at.store, self._bucket_at.reach

    def _path(self, path: str) -> str:
        return "/".join(part for part in (self._prefix, path) if part)

    @contextlib.contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        """Put what the store says into one sentence; a missing object stays FileNotFoundError."""
        try:
            yield
        except BatchAssetsError:
            raise
        except Exception as error:
            explained = self._meaning(path, error)
            if explained is error:
                raise
            raise self._reach.error_of_upload(error, explained) from error

    def _meaning(self, path: str, error: Exception) -> Exception:
        """What to raise in place of obstore's error. A HEAD that was refused is asked for its reason by a GET."""
        import obstore

        if is_silent_refusal(error):
            try:
                obstore.get(self._store, self._path(path), options={"range": (0, 1)})
            except Exception as told:
                error = told
        return explain(f"{self._bucket}/{self._path(path)}", error)

    def _ask(self, path: str, call: Callable[[], Made]) -> Made:
        """What `call` returns, once the store answers; errors as `_explained` puts them."""
        return self._reach.ask(call, functools.partial(self._meaning, path))

    def read(self, path: str) -> bytes:
        return self._read(path)[0]

    def read_versioned(self, path: str) -> tuple[bytes, str] | None:
        try:
            return self._read(path)
        except FileNotFoundError:
            return None

    def _read(self, path: str) -> tuple[bytes, str]:
        import obstore

        def read() -> tuple[bytes, str]:
            result = obstore.get(self._store, self._path(path))
            return self._whole(path, result), self._replaceable(result.meta)

        return self._ask(path, read)

    def _whole(self, path: str, result: Any) -> bytes:
        refuse_large(join_uri(self.uri, path), result.meta["size"])
        return bytes(result.bytes())

    def stream(
        self, path: str, start: int = 0, end: int | None = None, version: str | None = None
    ) -> Iterator[bytes]:
        import obstore
        from obstore.exceptions import PreconditionError

        conditional = version is not None and version.startswith(('"', "W/"))
        if end is None or (version is not None and not conditional):
            info = self.info(path)
            if info is None:
                raise FileNotFoundError(f"{self.uri}/{path}")
            if version is not None and info.version != version:
                raise VersionMismatch(path)
            end = info.size if end is None else end
        # One request per chunk: a slow consumer would otherwise run a long answer into its timeout.
        while start < end:
            options: dict[str, Any] = {"range": (start, min(start + CHUNK_BYTES, end))}
            if conditional:
                options["if_match"] = version
            get = functools.partial(obstore.get, self._store, self._path(path), options=cast("Any", options))
            try:
                chunk = self._ask(path, lambda get=get: get().bytes())
            except PreconditionError:
                raise VersionMismatch(path) from None
            if not chunk:
                return
            start += len(chunk)
            yield bytes(chunk)

    def create(self, path: str, data: bytes) -> bool:
        from obstore.exceptions import AlreadyExistsError

        return self._write_if(path, data, "create", (AlreadyExistsError,))

    def replace(self, path: str, data: bytes, version: str) -> bool:
        from obstore.exceptions import PreconditionError

        mode = {"version" if self._scheme == "gs" else "e_tag": version}
        return self._write_if(path, data, mode, (PreconditionError, FileNotFoundError))

    def _write_if(self, path: str, data: bytes, mode: Any, no: tuple[type[Exception], ...]) -> bool:
        """Write under a condition; False where the store says one of `no`, unless it is for a write of our own.

        A write whose answer was lost is in the way of its own repetition. Whoever takes something by such
        a write puts into it what nobody else would.
        """
        import obstore

        answer_lost = False

        def write() -> None:
            nonlocal answer_lost
            try:
                obstore.put(self._store, self._path(path), data, mode=mode, use_multipart=False)
            except Exception as error:
                answer_lost = answer_lost or is_away(self._meaning(path, error))
                raise

        try:
            self._ask(path, write)
        except no:
            found = self.read_versioned(path) if answer_lost else None
            return found is not None and found[0] == data
        return True

    def _replaceable(self, meta: Any) -> str:
        """By what `replace` tells a store which content it was: Google's takes a generation, others the entity tag."""
        return str(meta["version"]) if self._scheme == "gs" else _version(meta)

    def write(self, path: str, data: bytes) -> None:
        import obstore

        self._ask(path, lambda: obstore.put(self._store, self._path(path), data))

    def open_input(self, path: str) -> pa.NativeFile:
        import obstore

        open_reader = functools.partial(obstore.open_reader, self._store, self._path(path))
        return pa.PythonFile(ObjectInput(open_reader, functools.partial(self._ask, path)), mode="r")

    def open_output(self, path: str) -> Output:
        # The parts of an upload cannot be asked for again from here: obstore itself goes on trying.
        patient, uri = self._bucket_at.patient, f"{self._bucket}/{self._path(path)}"
        return ObjectOutput(
            patient,
            self._path(path),
            functools.partial(self._explained, path),
            lambda waited: self._reach.say(f"{uri}: no answer for {waited:,.0f} s; trying again"),
            functools.partial(self._holds, path),
        )

    def _holds(self, path: str, size: int, digest: bytes) -> bool:
        """Whether the object has `size` bytes with this SHA-256."""
        info = self.info(path)
        if info is None or info.size != size:
            return False
        found = hashlib.sha256()
        with contextlib.suppress(VersionMismatch, FileNotFoundError):
            for chunk in self.stream(path, 0, size, info.version):
                found.update(chunk)
        return found.digest() == digest

    def info(self, path: str) -> FileInfo | None:
        import obstore

        try:
            meta = self._ask(path, lambda: obstore.head(self._store, self._path(path)))
        except FileNotFoundError:
            return None
        return _info(path, meta)

    def list(self, prefix: str = "", after: str | None = None) -> Iterator[FileInfo]:
        import obstore

        folder = self._path(prefix)
        skip = len(self._prefix) + 1 if self._prefix else 0
        offset = self._path(after) if after is not None else None
        told: set[str] = set()
        pages: Iterator[Any] | None = None

        def next_page() -> Any:
            nonlocal pages
            try:
                pages = (
                    iter(obstore.list(self._store, folder or None, offset=offset)) if pages is None else pages
                )
                return next(pages, None)
            except Exception:
                pages = None  # goes on behind what it has listed
                raise

        while (page := self._ask(prefix, next_page)) is not None:
            for meta in page:
                key = meta["path"]
                # Consoles mark folders by objects named "folder/"; the listing drops that slash, so that they come
                # behind "folder-1", and again after it.
                if key in told:
                    continue
                if offset is None or key > offset:
                    # Only a key that the last one begins with can come again, so that few are kept.
                    offset, told = key, {earlier for earlier in told if key.startswith(earlier)}
                told.add(key)
                if key != folder:
                    yield _info(key[skip:], meta)

    def copy(self, source: str, target: str) -> None:
        import obstore

        try:
            self._ask(source, lambda: obstore.copy(self._store, self._path(source), self._path(target)))
        except (ConfigurationError, LastingStorageError):
            info = None
            if self._scheme == "s3":
                with contextlib.suppress(BatchAssetsError):  # what was said first is the reason
                    info = self.info(source)
            if info is None or info.size <= MOST_COPIED_BY_S3:
                raise
            with self.open_output(target) as output:
                for chunk in self.stream(source, 0, info.size, info.version):
                    output.write(chunk)

    def delete(self, paths: Sequence[str]) -> None:
        for start in range(0, len(paths), 1000):
            some = paths[start : start + 1000]
            if self._delete(some) or len(some) == 1:
                continue
            # The first one that is gone has ended the deletion of others: Google's store takes one key at a time.
            for _ in map_in_order(lambda path: self._delete([path]), some, threads_for(self)):
                pass

    def _delete(self, paths: Sequence[str]) -> bool:
        """Delete objects; False where one is gone, and others may be left for that reason."""
        import obstore

        keys = [self._path(path) for path in paths]
        try:
            self._ask("", lambda: obstore.delete(self._store, keys))
        except FileNotFoundError:
            return False
        return True


def _info(path: str, meta: Any) -> FileInfo:
    return FileInfo(path, meta["size"], _version(meta), meta["last_modified"].timestamp())


def _version(meta: Any) -> str:
    """The entity tag, or what comes closest to one in a store that has none."""
    return str(meta["e_tag"] or f"{meta['last_modified'].timestamp()}-{meta['size']}")
