"""A prefix of a bucket: S3, Google Cloud Storage or Azure, by obstore."""

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, cast

import pyarrow as pa

from batch_assets.errors import BatchAssetsError, ConfigurationError, LastingStorageError
from batch_assets.storage.base import CHUNK_BYTES, FileInfo, Output, VersionMismatch, join_uri, refuse_large
from batch_assets.storage.credentials import s3_access
from batch_assets.storage.object_errors import explain, is_silent_refusal, refused_settings
from batch_assets.storage.object_files import ObjectInput, ObjectOutput
from batch_assets.storage.threads import map_in_order, threads_for

_TOLD_BY = ("AWS_", "GOOGLE_", "AZURE_")
MOST_COPIED_BY_S3 = 5 * 2**30
"""More it copies in parts only, which obstore does not ask for: such bytes go through this machine."""
_RETRY = {"max_retries": 8, "retry_timeout": timedelta(seconds=60)}


class ObjectStorage:
    """Objects whose keys begin with the prefix in `uri` (scheme://bucket/prefix)."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        scheme, _, rest = uri.partition("://")
        bucket, _, self._prefix = rest.partition("/")
        self._bucket = f"{scheme}://{bucket}"
        self._scheme = scheme
        try:
            self._store = _bucket(scheme, bucket)
        except BatchAssetsError:
            raise
        except Exception as error:
            raise refused_settings(uri, error) from error

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
            raise explained from error

    def _meaning(self, path: str, error: Exception) -> Exception:
        """What to raise in place of obstore's error. A HEAD that was refused is asked for its reason by a GET."""
        import obstore

        if is_silent_refusal(error):
            try:
                obstore.get(self._store, self._path(path), options={"range": (0, 1)})
            except Exception as told:
                error = told
        return explain(f"{self._bucket}/{self._path(path)}", error)

    def read(self, path: str) -> bytes:
        import obstore

        with self._explained(path):
            return self._whole(path, obstore.get(self._store, self._path(path)))

    def read_versioned(self, path: str) -> tuple[bytes, str] | None:
        import obstore

        try:
            with self._explained(path):
                result = obstore.get(self._store, self._path(path))
                return self._whole(path, result), self._replaceable(result.meta)
        except FileNotFoundError:
            return None

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
            with self._explained(path):
                try:
                    chunk = obstore.get(self._store, self._path(path), options=cast("Any", options)).bytes()
                except PreconditionError:
                    raise VersionMismatch(path) from None
            if not chunk:
                return
            start += len(chunk)
            yield bytes(chunk)

    def create(self, path: str, data: bytes) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError

        try:
            with self._explained(path):
                obstore.put(self._store, self._path(path), data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        return True

    def replace(self, path: str, data: bytes, version: str) -> bool:
        import obstore
        from obstore.exceptions import PreconditionError

        mode = cast("Any", {"version" if self._scheme == "gs" else "e_tag": version})
        try:
            with self._explained(path):
                obstore.put(self._store, self._path(path), data, mode=mode, use_multipart=False)
        except (PreconditionError, FileNotFoundError):
            return False
        return True

    def _replaceable(self, meta: Any) -> str:
        """By what `replace` tells a store which content it was: Google's takes a generation, others the entity tag."""
        return str(meta["version"]) if self._scheme == "gs" else _version(meta)

    def write(self, path: str, data: bytes) -> None:
        import obstore

        with self._explained(path):
            obstore.put(self._store, self._path(path), data)

    def open_input(self, path: str) -> pa.NativeFile:
        import obstore

        with self._explained(path):
            reader = obstore.open_reader(self._store, self._path(path))
        return pa.PythonFile(ObjectInput(reader, functools.partial(self._explained, path)), mode="r")

    def open_output(self, path: str) -> Output:
        return ObjectOutput(self._store, self._path(path), functools.partial(self._explained, path))

    def info(self, path: str) -> FileInfo | None:
        import obstore

        try:
            with self._explained(path):
                meta = obstore.head(self._store, self._path(path))
        except FileNotFoundError:
            return None
        return _info(path, meta)

    def list(self, prefix: str = "", after: str | None = None) -> Iterator[FileInfo]:
        import obstore

        folder = self._path(prefix)
        skip = len(self._prefix) + 1 if self._prefix else 0
        offset = self._path(after) if after is not None else None
        with self._explained(prefix):
            for page in obstore.list(self._store, folder or None, offset=offset):
                for meta in page:
                    # Consoles mark folders by objects named "folder/"; the listing drops that slash.
                    if meta["path"] != folder:
                        yield _info(meta["path"][skip:], meta)

    def copy(self, source: str, target: str) -> None:
        import obstore

        try:
            with self._explained(source):
                obstore.copy(self._store, self._path(source), self._path(target))
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

        try:
            with self._explained(""):
                obstore.delete(self._store, [self._path(path) for path in paths])
        except FileNotFoundError:
            return False
        return True


def _info(path: str, meta: Any) -> FileInfo:
    return FileInfo(path, meta["size"], _version(meta), meta["last_modified"].timestamp())


def _version(meta: Any) -> str:
    """The entity tag, or what comes closest to one in a store that has none."""
    return str(meta["e_tag"] or f"{meta['last_modified'].timestamp()}-{meta['size']}")


def _bucket(scheme: str, bucket: str) -> Any:
    """One store of a bucket for the whole process, as long as its environment stays the same: it keeps connections."""
    told = sorted((name, value) for name, value in os.environ.items() if name.startswith(_TOLD_BY))
    # Connections do not outlive a fork.
    return _open_bucket(scheme, bucket, os.getpid(), tuple(told))


@functools.lru_cache(maxsize=64)
def _open_bucket(scheme: str, bucket: str, _process: int, _environment: tuple[tuple[str, str], ...]) -> Any:
    from obstore.store import AzureStore, GCSStore, S3Store

    if scheme == "gs":
        return GCSStore(bucket, retry_config=cast("Any", _RETRY))
    if scheme == "az":
        return AzureStore(bucket, retry_config=cast("Any", _RETRY))
    access = s3_access(bucket)
    options: dict[str, Any] = {"retry_config": _RETRY}
    if access.endpoint:
        options["endpoint"] = access.endpoint
    if access.allows_http:
        options["client_options"] = {"allow_http": True}
    if access.session is not None:
        from obstore.auth.boto3 import Boto3CredentialProvider

        options["credential_provider"] = Boto3CredentialProvider(access.session)
    if access.region:
        options["region"] = access.region
    return S3Store(bucket, **options)
