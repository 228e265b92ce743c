"""From where a record says its image is to the file's bytes: a path, s3://, gs://, az://, http(s)://.

What is wrong with a location is told by NotFetched and costs that record only. What is in the file
is the decoder's business; how many are fetched at once is decided in `images.py`.
"""

import errno
import functools
import os
import re
import stat
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from batch_assets.errors import BatchAssetsError, ConfigurationError, StorageError
from batch_assets.retry_policy import (
    IMAGE_FIRST_PAUSE_SECONDS,
    IMAGE_LONGEST_PAUSE_SECONDS,
    IMAGE_SECONDS,
    IMAGE_TRIES,
    LONGEST_RETRY_AFTER_SECONDS,
)
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.storage import CHUNK_BYTES, Storage, normalize_uri, open_storage
from batch_assets.worker.hosts import Hosts
from batch_assets.worker.not_fetched import (
    BAD_URL,
    FETCH_ERROR,
    IMAGE_MISSING,
    IMAGE_TOO_LARGE,
    NO_IMAGE,
    NotFetched,
)
from batch_assets.worker.pacing import shared_pacer

if TYPE_CHECKING:
    from batch_assets.worker.connections import Attempts

SHOWN = 200
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)

_hosts = Hosts()


@dataclass(frozen=True)
class Fetching:
    """How images are fetched: at most so many bytes of each, from private addresses or public ones only.

    `calls_per_second` is the most HTTP requests that this process makes for the pipeline `name`,
    tries again and redirects among them; None is no limit.
    """

    most_bytes: int = 16_000_000
    allow_private: bool = False
    calls_per_second: float | None = None
    name: str = ""

    @classmethod
    def of(cls, settings: PipelineSettings) -> "Fetching":
        """How a pipeline's images are fetched; `settings.calls_per_second` is this worker's share by now."""
        return cls(
            settings.shards.max_record_bytes,
            settings.source.allow_private_addresses,
            settings.calls_per_second,
            settings.name,
        )


def is_remote(location: str) -> bool:
    """Whether fetching it means waiting for another machine, for which many can be waited for at once."""
    return "://" in location and not location[:7].lower().startswith("file://")


def fetch(location: str, *, most_bytes: int, allow_private: bool) -> bytes:
    """The file at `location`: a path, file://, s3://, gs://, az://, http:// or https://. Raises NotFetched."""
    return Fetcher(Fetching(most_bytes, allow_private)).fetch(location)


class Fetcher:
    """Fetches files, in any number of threads, until it is stopped."""

    def __init__(self, fetching: Fetching) -> None:
        self._fetching = fetching
        self._stopped = threading.Event()
        self._attempts: Attempts | None = None
        self._lock = threading.Lock()

    def stop(self) -> None:
        """End what is under way, without waiting for it; from now on NotFetched is all there is."""
        self._stopped.set()
        with self._lock:
            if self._attempts is not None:
                self._attempts.stop()

    def fetch(self, location: str) -> bytes:
        """The file's bytes. Raises NotFetched."""
        scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", location)
        kind = scheme[1].lower() if scheme else "file"
        if kind in ("http", "https"):
            content = self._from_web(location)
        elif kind in ("s3", "gs", "az"):
            content = _from_store(location, self._fetching.most_bytes)
        elif kind == "file":
            content = _from_disk(normalize_uri(location) if scheme else location, self._fetching.most_bytes)
        else:
            text = (
                f"{location[:SHOWN]!r}: cannot fetch {kind}://; use a path, s3://, gs://, az:// or http(s)://"
            )
            raise NotFetched(BAD_URL, text)
        if not content:
            raise NotFetched(NO_IMAGE, f"{_shown(location)} has no bytes")
        return content

    def _from_web(self, url: str) -> bytes:
        """Several tries, with growing pauses between them, or as long as the server asks for."""
        import tenacity

        try:
            host = urlsplit(url).hostname
        except ValueError:
            host = None
        if not host:
            raise NotFetched(BAD_URL, f"{url[:SHOWN]!r} names no host")
        turn = _Turn(self._fetching, self._stopped)
        retrying = tenacity.Retrying(
            stop=turn.was_last,
            wait=_pause,
            sleep=tenacity.sleep_using_event(self._stopped),
            retry=tenacity.retry_if_exception(lambda error: getattr(error, "again", False)),
            reraise=True,
        )
        return retrying(self._try, url, host, turn)

    def _try(self, url: str, host: str, turn: "_Turn") -> bytes:
        from batch_assets.worker import connections, web

        with self._lock:
            self._attempts = self._attempts or connections.Attempts()
        _refuse_resting(host)
        turn.wait()
        # The host may have gone down, and the run may have been stopped, in the meantime.
        _refuse_resting(host)
        told = self._fetching
        try:
            content = web.download(
                url,
                most_bytes=told.most_bytes,
                allow_private=told.allow_private,
                attempts=self._attempts,
                wait_for_turn=turn.wait,
            )
        except NotFetched as error:
            if not error.down:
                _hosts.success(host)
            elif not self._stopped.is_set():
                _hosts.failure(host, str(error))
            raise
        _hosts.success(host)
        return content


class _Turn:
    """The turns of one file's calls; the time spent on waiting for them is not the server's."""

    def __init__(self, fetching: Fetching, stopped: threading.Event) -> None:
        cap = fetching.calls_per_second
        self._pacer = shared_pacer(fetching.name, cap) if cap is not None else None
        self._stopped = stopped
        self._waited = 0.0

    def wait(self) -> None:
        """Wait until a call may be made. Raises NotFetched where the run was stopped."""
        if self._pacer is not None:
            self._waited += self._pacer.wait(self._stopped.wait)
        if self._stopped.is_set():
            raise NotFetched(FETCH_ERROR, "the run was stopped")

    def was_last(self, state: Any) -> bool:
        """Whether there is no other try, being the last or later than IMAGE_SECONDS; tenacity asks."""
        late = state.seconds_since_start - self._waited + state.upcoming_sleep >= IMAGE_SECONDS
        return late or state.attempt_number >= IMAGE_TRIES


def _pause(state: Any) -> float:
    """Seconds before the next try: tenacity's exponential ones, of random length, if the server says nothing."""
    import tenacity

    error = state.outcome.exception()
    if error.pause is not None:
        return min(error.pause, LONGEST_RETRY_AFTER_SECONDS)
    backoff = tenacity.wait_random_exponential(
        multiplier=IMAGE_FIRST_PAUSE_SECONDS, max=IMAGE_LONGEST_PAUSE_SECONDS
    )
    return IMAGE_FIRST_PAUSE_SECONDS / 2 + backoff(state)


def _from_disk(path: str, most_bytes: int) -> bytes:
    try:
        # Opening a pipe would wait for who writes into it, reading a device might never end.
        with open(path, "rb", opener=_open_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise NotFetched(IMAGE_MISSING, f"{path[:SHOWN]!r} is no file")
            content = file.read(most_bytes + 1)
    except ValueError:
        raise NotFetched(IMAGE_MISSING, f"{path[:SHOWN]!r} can be no file's name") from None
    except OSError as error:
        if error.errno in _NO_FILE:
            raise NotFetched(IMAGE_MISSING, f"there is no file {path[:SHOWN]!r}") from None
        raise NotFetched(FETCH_ERROR, f"{path[:SHOWN]!r} cannot be read: {error.strerror}") from None
    _refuse_large(len(content), most_bytes)
    return content


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _from_store(uri: str, most_bytes: int) -> bytes:
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if not bucket or not key:
        raise NotFetched(BAD_URL, f"{uri[:SHOWN]!r} names no object; write {scheme}://bucket/key")
    host = f"{scheme.lower()}://{bucket}"
    _refuse_resting(host)
    storage = None
    try:
        storage = _bucket(host)
        content = _read_object(storage, key, most_bytes)
    except FileNotFoundError:
        raise NotFetched(IMAGE_MISSING, f"there is no object {_shown(uri)}") from None
    except (ConfigurationError, StorageError) as error:
        # Of one object, access may be denied; but looking for credentials in vain takes seconds each time.
        if storage is None or isinstance(error, StorageError):
            _hosts.failure(host, str(error))
        # No rejection: what cannot be read today may be readable once somebody has given access.
        raise NotFetched(FETCH_ERROR, str(error)) from None
    _hosts.success(host)
    _refuse_large(len(content), most_bytes)
    return content


def _refuse_resting(host: str) -> None:
    if (reason := _hosts.rests(host)) is not None:
        # The reason first: it is what all of the host's records have in common.
        text = f"{reason.rstrip('.')}. It failed many times in a row, and {host} is left alone for a while"
        raise NotFetched(FETCH_ERROR, text)


def _read_object(storage: Storage, key: str, most_bytes: int) -> bytes:
    """An object, or its beginning where it has more than `most_bytes`; in most cases by one request."""
    read = bytearray()
    try:
        for chunk in storage.stream(key, 0, most_bytes + 1):
            read += chunk
            if len(chunk) < CHUNK_BYTES:
                break
    except BatchAssetsError:
        # Stores refuse to read from an object's very end on.
        info = storage.info(key)
        if info is None or info.size != len(read):
            raise
    return bytes(read)


_opening = threading.Lock()


def _bucket(uri: str) -> Storage:
    with _opening:
        return _opened(uri, os.environ.get("AWS_ENDPOINT_URL", ""))


@functools.lru_cache(maxsize=64)
def _opened(uri: str, endpoint: str) -> Storage:
    """`endpoint` is what the storage reads from the environment."""
    return open_storage(uri)


def _refuse_large(size: int, most_bytes: int) -> None:
    if size > most_bytes:
        text = f"the file has more than the {most_bytes:,} bytes of shards.max_record_bytes"
        raise NotFetched(IMAGE_TOO_LARGE, text)


def _shown(location: str) -> str:
    """A location without what may be a secret in it: a query, a password."""
    return location.partition("?")[0].rpartition("@")[2][:SHOWN]
