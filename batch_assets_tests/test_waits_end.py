"""Threads that wait for what does not answer stop waiting when whoever started them is interrupted or gives up."""

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from batch_assets.control.together import Together, each
from batch_assets.errors import StorageError
from batch_assets.patience import Patience
from batch_assets.storage.threads import map_in_order
from batch_assets_tests.waiting import PATIENCE_SECONDS, wait_until

AWAY = StorageError("s3://bucket/out: no answer")
Act = Callable[[Callable[[int], None]], Any]


class Waiters:
    """Threads that wait for a store for a day."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.waiting = self.ended = 0

    def wait(self, _: int) -> None:
        patience = Patience(lambda sentence: None, seconds=86_400)
        with self._lock:
            self.waiting += 1
        try:
            while True:
                patience.wait(AWAY)
        finally:
            with self._lock:
                self.ended += 1


def in_order(wait: Callable[[int], None]) -> Iterator[None]:
    yield from map_in_order(wait, range(2), 2)


def within_another(wait: Callable[[int], None]) -> Iterator[Any]:
    """As a shard's files are handled within the thread of the shard."""
    yield from map_in_order(lambda _: list(map_in_order(wait, range(1), 1)), range(2), 2)


def together(wait: Callable[[int], None]) -> Iterator[None]:
    yield from each(wait, range(2), 2, Together())


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("act", [in_order, within_another, together])
def test_ctrl_c_does_not_wait_for_what_threads_wait_for(act: Act) -> None:
    waiters = Waiters()

    def interrupt() -> None:
        wait_until(lambda: waiters.waiting == 2)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        list(act(waiters.wait))
    thread.join(PATIENCE_SECONDS)
    # Whoever is interrupted while starting a thread does not wait for that one; it ends soon after all the same.
    wait_until(lambda: waiters.ended == 2)


def test_the_first_error_ends_what_other_threads_wait_for() -> None:
    waiters = Waiters()

    def fail_beside_one_who_waits(number: int) -> None:
        if number == 1:
            waiters.wait(number)
        wait_until(lambda: waiters.waiting)
        raise ValueError("the first error")

    with pytest.raises(ValueError, match="the first error"):
        list(map_in_order(fail_beside_one_who_waits, range(2), 2))
    assert waiters.ended == 1
