"""Objects as files: written front to back by obstore's writer, read anywhere by its reader."""

import contextlib
import hashlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

from batch_assets.retry_policy import SPEAK_SECONDS
from batch_assets.storage.object_errors import is_missing_upload


class ObjectOutput:
    """An upload, in parts from 10 MB on; the object appears when it is completed.

    `say` is told for how many seconds an answer has been missing. `holds` says whether the object has so many bytes
    with this SHA-256.
    """

    def __init__(
        self,
        store: Any,
        key: str,
        explained: Callable[[], AbstractContextManager[None]],
        say: Callable[[float], None],
        holds: Callable[[int, bytes], bool],
    ) -> None:
        import obstore

        self._explained = explained
        self._say = say
        self._holds = holds
        self._position = 0
        self._digest = hashlib.sha256()
        self._asked_at: float | None = None
        self._ended = threading.Event()
        with explained():
            self._writer = obstore.open_writer(store, key)
        threading.Thread(target=self._speak, name="upload-waits", daemon=True).start()

    def _speak(self) -> None:
        """Say that no answer comes, now and then: obstore tries again without a word."""
        while not self._ended.wait(SPEAK_SECONDS):
            asked_at = self._asked_at
            if asked_at is not None and (waited := time.monotonic() - asked_at) >= SPEAK_SECONDS:
                self._say(waited)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        self._asked_at = time.monotonic()
        try:
            with self._explained():
                yield
        finally:
            self._asked_at = None

    @property
    def closed(self) -> bool:
        return self._writer.closed()

    def write(self, data: bytes | memoryview, /) -> int:
        with self._asking():
            self._writer.write(data)
        self._digest.update(data)
        size = memoryview(data).nbytes
        self._position += size
        return size

    def flush(self) -> None:
        """Parts go out by themselves; what is short of one waits for `close`."""

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        if not self.closed:
            try:
                with self._asking():
                    self._complete()
            finally:
                self._ended.set()

    def _complete(self) -> None:
        try:
            self._writer.close()
        except Exception as error:
            # The answer to the completion may have been lost; obstore has then sent it again, in vain.
            if not (is_missing_upload(error) and self._holds(self._position, self._digest.digest())):
                raise

    def abort(self) -> None:
        self._ended.set()
        if not self.closed:
            self._writer.__exit__(RuntimeError, RuntimeError("aborted"), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class ObjectInput(io.RawIOBase):
    """obstore's reader with a file's manners: any `whence`, bytes of the standard kind, and another one where it broke.

    `ask` calls what it is given until the store answers.
    """

    def __init__(self, open_reader: Callable[[], Any], ask: Callable[[Callable[[], Any]], Any]) -> None:
        self._open_reader = open_reader
        self._ask = ask
        self._position = 0
        self._reader: Any = None
        self._ask(self._opened)

    def _opened(self) -> Any:
        if self._reader is None:
            self._reader = self._open_reader()
            self._reader.seek(self._position)
        return self._reader

    def _do(self, act: Callable[[Any], Any]) -> Any:
        def do() -> Any:
            try:
                return act(self._opened())
            except Exception:
                self._reader = None  # what it holds after a failure is not known
                raise

        return self._ask(do)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = bytes(self._do(lambda reader: reader.read(size if size >= 0 else None)))
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._position = int(self._do(lambda reader: reader.seek(offset, whence)))
        return self._position

    def tell(self) -> int:
        return self._position
