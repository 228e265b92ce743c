"""Objects as files: written front to back by obstore's writer, read anywhere by its reader."""

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self


class ObjectOutput:
    """An upload, in parts from 10 MB on; the object appears when it is completed."""

    def __init__(self, store: Any, key: str, explained: Callable[[], AbstractContextManager[None]]) -> None:
        import obstore

        self._explained = explained
        self._position = 0
        with explained():
            self._writer = obstore.open_writer(store, key)

    @property
    def closed(self) -> bool:
        return self._writer.closed()

    def write(self, data: bytes | memoryview, /) -> int:
        with self._explained():
            self._writer.write(data)
        size = memoryview(data).nbytes
        self._position += size
        return size

    def flush(self) -> None:
        """Parts go out by themselves; what is short of one waits for `close`."""

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        if not self.closed:
            with self._explained():
                self._writer.close()

    def abort(self) -> None:
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
    """obstore's reader with a file's manners: any `whence`, bytes of the standard kind, our errors."""

    def __init__(self, reader: Any, explained: Callable[[], AbstractContextManager[None]]) -> None:
        self._explained = explained
        self._reader = reader

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        with self._explained():
            return bytes(self._reader.read(size if size >= 0 else None))

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        with self._explained():
            return int(self._reader.seek(offset, whence))

    def tell(self) -> int:
        return int(self._reader.tell())
