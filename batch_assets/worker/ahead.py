"""Running an iterator ahead of who consumes it, in a thread of its own."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")


class Stopped(Exception):
    """Somebody iterates over what was told to stop."""


class Ahead(Generic[Item]):
    """Iterates over `source` in a thread, at most `depth` items ahead; use it in a `with` block.

    An error of the source is raised where its item would have come. Leaving the block ends the
    thread after the item it is at, and closes the source if it is a generator.
    """

    PATIENCE_SECONDS = 5.0
    """How long leaving waits for a source that is stuck in a read; its thread then ends by itself."""

    def __init__(self, source: Iterable[Item], depth: int, name: str) -> None:
        self._source = source
        self._depth = depth
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._finished = self._stopped = False
        self._error: BaseException | None = None
        # A daemon: a read that never returns must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._thread.join(self.PATIENCE_SECONDS)

    def stop(self) -> None:
        """Tell the thread to end, without waiting for it; whoever still iterates gets Stopped."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._finished or self._stopped)
                if self._stopped:
                    raise Stopped
                if not self._items:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item

    def _run(self) -> None:
        try:
            iterator = iter(self._source)
            try:
                for item in iterator:
                    with self._changed:
                        self._changed.wait_for(lambda: len(self._items) < self._depth or self._stopped)
                        if self._stopped:
                            return
                        self._items.append(item)
                        self._changed.notify_all()
            finally:
                close = getattr(iterator, "close", None)
                if close is not None:
                    close()
        except BaseException as error:  # raised again in the consumer's thread
            self._error = error
        finally:
            with self._changed:
                self._finished = True
                self._changed.notify_all()
