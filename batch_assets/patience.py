"""Waiting for what does not answer, within the limits of `retry_policy.py`: shortly in a tick, never past Ctrl-C."""

import contextlib
import contextvars
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from batch_assets.errors import LastingStorageError
from batch_assets.retry_policy import (
    ANSWER_SECONDS,
    AWAY_SECONDS,
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    LOOK_SECONDS,
    SILENT_SECONDS,
    SPEAK_SECONDS,
    TICK_SECONDS,
)

_ticking: contextvars.ContextVar[bool] = contextvars.ContextVar("ticking", default=False)


class End(Protocol):
    """Set once some work is no longer wanted; a `threading.Event` is one."""

    def is_set(self) -> bool: ...


_ends: contextvars.ContextVar[tuple[End, ...]] = contextvars.ContextVar("ends", default=())


@contextlib.contextmanager
def in_a_tick() -> Iterator[None]:
    """What does not answer is left for the next time, for whatever this block does."""
    token = _ticking.set(True)
    try:
        yield
    finally:
        _ticking.reset(token)


def ticking() -> bool:
    """Whether this is a tick."""
    return _ticking.get()


def seconds_now(seconds: float) -> float:
    """How long to wait where it is `seconds` at most, and TICK_SECONDS in a tick."""
    return min(seconds, TICK_SECONDS) if ticking() else seconds


def is_ended() -> bool:
    """Whether this thread's work is no longer wanted (`wanted_until`, `context_until`)."""
    return any(end.is_set() for end in _ends.get())


@contextlib.contextmanager
def waiting_shortly() -> Iterator[None]:
    """Wait as in a tick, also in a thread whose work is no longer wanted: what it holds is to be given back."""
    token = _ends.set(())
    try:
        with in_a_tick():
            yield
    finally:
        _ends.reset(token)


@contextlib.contextmanager
def wanted_until(end: End) -> Iterator[None]:
    """Once `end` is set, whatever this block does is no longer wanted, in the threads that it starts too."""
    token = _ends.set((*_ends.get(), end))
    try:
        yield
    finally:
        _ends.reset(token)


def context_until(end: threading.Event) -> contextvars.Context:
    """A copy of this context for another thread: whoever waits there stops waiting once `end` is set.

    The main thread alone gets Ctrl-C; without this it would wait for threads that wait for minutes themselves.
    """
    context = contextvars.copy_context()
    context.run(_ends.set, (*_ends.get(), end))
    return context


def pause(seconds: float) -> None:
    """Sleep. Raises KeyboardInterrupt in a thread whose work is no longer wanted (`is_ended`)."""
    while _ends.get() and seconds > LOOK_SECONDS and not is_ended():
        time.sleep(LOOK_SECONDS)
        seconds -= LOOK_SECONDS
    if is_ended():
        raise KeyboardInterrupt
    time.sleep(seconds)


class Patience:
    """One wait: from the first failure on until `renew` says that something went on.

    Pauses count, and of each later try as much as it may have waited for an answer; work that goes well for ten
    minutes and then fails again has not been waited for.

    `say` gets a sentence where the wait is a long one, and then now and then. `pause` is how to sleep.
    """

    def __init__(
        self,
        say: Callable[[str], object],
        seconds: float = AWAY_SECONDS,
        pause: Callable[[float], object] = pause,
    ) -> None:
        self._say = say
        self._pause = pause
        self._seconds = seconds_now(seconds)
        self.renew()

    def renew(self) -> None:
        """Something went on: the next failure is a first one."""
        self._waited, self._pauses = 0.0, 0
        self._tried_at: float | None = None
        self._said: float | None = None

    def wait(self, error: Exception) -> None:
        """Pause before the next try. Raises LastingStorageError where it has been waited long enough.

        An `error` that is one already is raised as it is.
        """
        if isinstance(error, LastingStorageError):
            raise error
        if self._tried_at is not None:
            self._waited += min(time.monotonic() - self._tried_at, ANSWER_SECONDS)
        left = self._seconds - self._waited
        if left <= 0:
            # What was as good as not waited for is said as it is.
            told = f"; waited {self._waited:,.0f} s for it" if self._waited >= SILENT_SECONDS else ""
            raise LastingStorageError(f"{error}{told}") from error
        if self._waited >= SILENT_SECONDS and (
            self._said is None or self._waited - self._said >= SPEAK_SECONDS
        ):
            self._said = self._waited
            self._say(f"{error}; trying again for {left:,.0f} s more")
        longest = min(FIRST_PAUSE_SECONDS * 2**self._pauses, LONGEST_PAUSE_SECONDS)
        self._pauses += 1
        # Of random length: many that wait for one store are not to come back to it all at once.
        seconds = min(longest * random.uniform(0.5, 1.0), left)
        self._pause(seconds)
        self._waited += seconds
        self._tried_at = time.monotonic()
