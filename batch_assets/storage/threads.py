"""Handling many files of a storage at once, in order and in bounded memory."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from batch_assets.patience import context_until
from batch_assets.storage.base import Storage, is_local

Item = TypeVar("Item")
Made = TypeVar("Made")


def threads_for(storage: Storage) -> int:
    """How many files to handle at once: a local disk is kept busy by few, an object store takes many."""
    return 4 if is_local(storage.uri) else 16


def map_in_order(function: Callable[[Item], Made], items: Iterable[Item], threads: int) -> Iterator[Made]:
    """`map` over threads, results in order; never more than twice `threads` items at once.

    Where it ends early (an error, Ctrl-C, a generator that is closed), what its threads wait for is not waited for.
    """
    ended = threading.Event()
    waiting: list[Future[Made]] = []
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                if len(waiting) >= 2 * threads:
                    yield waiting.pop(0).result()
                # As the caller would do it: in a tick, for one, nothing is waited for.
                waiting.append(pool.submit(context_until(ended).run, function, item))
            while waiting:
                yield waiting.pop(0).result()
        finally:
            ended.set()
            for future in waiting:
                future.cancel()
