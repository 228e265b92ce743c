"""Working on several shards at once, in threads, and ending all of it together.

What is done to a shard is `collection.py`'s business.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from batch_assets.executors.base import Cancelled, ShardRunner
from batch_assets.patience import context_until

Item = TypeVar("Item")
Made = TypeVar("Made")


class Together:
    """The jobs of a shard runner that this call is at; once halted, they are cancelled and no new one begins."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[tuple[ShardRunner, str]] = []
        self._halted = False

    @contextlib.contextmanager
    def running(self, executor: ShardRunner, job: str) -> Iterator[None]:
        """Note that the job runs while the block runs. Raises Cancelled where all is to end."""
        with self._lock:
            self._demand_going_on()
            self._running.append((executor, job))
        try:
            yield
        finally:
            with self._lock:
                self._running.remove((executor, job))

    def demand_going_on(self) -> None:
        """Raise Cancelled where all is to end."""
        with self._lock:
            self._demand_going_on()

    def _demand_going_on(self) -> None:
        if self._halted:
            raise Cancelled

    def halt(self) -> None:
        """End all: whoever runs one of these jobs gets Cancelled."""
        with self._lock:
            self._halted = True
            for executor, job in self._running:
                executor.cancel(job)


def each(
    function: Callable[[Item], Made], items: Sequence[Item], threads: int, together: Together
) -> Iterator[Made]:
    """`function` of each item, as they end: every thread takes the next one that nobody has.

    With one thread they are done here, one after the other. The first error is raised when all
    threads have ended; so they have when the caller closes this generator, or is interrupted. What they wait for
    is then waited for no longer.
    """
    if threads == 1:
        yield from map(function, items)
        return
    ended = threading.Event()
    with ThreadPoolExecutor(threads, thread_name_prefix="shards") as pool:
        try:
            futures = [pool.submit(context_until(ended).run, function, item) for item in items]
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            ended.set()
            together.halt()
            raise
