"""Many requests, few transactions: what comes while one is committed goes into the next one together.

A commit waits for the disk, whatever it holds. Each caller is told once its own request is durable, never before.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Sequence

from batch_assets.plain_text import plain_logger
from batch_assets.requests.store import Accepted, NewRequest, RequestStore

MOST_REQUESTS = 2_000
MOST_BYTES = 16 * 2**20
logger = plain_logger(__name__)
Waiter = tuple[Sequence[NewRequest], "asyncio.Future[list[Accepted]]"]


class GroupCommit:
    """A thread that writes for an event loop. Used as a context; what was handed in is written before it ends."""

    def __init__(self, store: RequestStore) -> None:
        self._store = store
        self._waiting: deque[Waiter] = deque()
        self._arrived = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._work, name="group-commit", daemon=True)

    def __enter__(self) -> "GroupCommit":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._arrived:
            self._ending = True
            self._arrived.notify()
        self._thread.join()

    async def accept(self, requests: Sequence[NewRequest]) -> list[Accepted]:
        """Wait until the requests are durable. Raises DatabaseAway."""
        future: asyncio.Future[list[Accepted]] = asyncio.get_running_loop().create_future()
        with self._arrived:
            self._waiting.append((requests, future))
            self._arrived.notify()
        return await future

    def _work(self) -> None:
        while True:
            with self._arrived:
                while not self._waiting and not self._ending:
                    self._arrived.wait()
                if not self._waiting:
                    return
                group = self._take()
            self._write(group)

    def _take(self) -> list[Waiter]:
        group: list[Waiter] = []
        count = size = 0
        while self._waiting and count < MOST_REQUESTS and size < MOST_BYTES:
            waiter = self._waiting.popleft()
            group.append(waiter)
            count += len(waiter[0])
            size += sum(len(one.body) for one in waiter[0])
        return group

    def _write(self, group: Sequence[Waiter]) -> None:
        try:
            made = self._store.accept([one for requests, _ in group for one in requests])
        except Exception as error:
            logger.error("%d requests are not accepted: %s", sum(len(one) for one, _ in group), error)
            _tell(group, [error] * len(group))
            return
        answers: list[list[Accepted]] = []
        start = 0
        for requests, _ in group:
            answers.append(made[start : start + len(requests)])
            start += len(requests)
        _tell(group, answers)


def _tell(group: Sequence[Waiter], answers: Sequence[list[Accepted] | Exception]) -> None:
    """Wake the callers, by one call into their loop."""

    def wake() -> None:
        for (_, future), answer in zip(group, answers, strict=True):
            if future.done():
                continue  # its client has gone
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    group[0][1].get_loop().call_soon_threadsafe(wake)
