"""Ctrl-C and SIGTERM of a command that runs Dagster in its own process.

Dagster catches them while it keeps its own books, and drops one that comes there as a step ends
(`capture_interrupts` forgets it as it leaves); an exception that a handler raises within a callback
of the garbage collector is lost too. Python notes every signal also in a wakeup socket, whoever
handles it: what is in there has come. Whoever waits or computes within `noted` looks there now and then
(`patience.is_ended`), or a signal that was dropped would be heard only when the shards at hand have ended.
"""

import contextlib
import signal
import socket
from collections.abc import Iterator

from batch_assets.patience import wanted_until

_ears: list[socket.socket] = []


@contextlib.contextmanager
def noted() -> Iterator[None]:
    """Note what comes while this block runs; in the main thread only."""
    ear, mouth = socket.socketpair()
    with ear, mouth:
        ear.setblocking(False)
        mouth.setblocking(False)
        before = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
        _ears.append(ear)
        try:
            with wanted_until(_Interruption()):
                yield
        finally:
            _ears.remove(ear)
            signal.set_wakeup_fd(before)


class _Interruption:
    """An `End`."""

    def is_set(self) -> bool:
        return has_come()


def has_come() -> bool:
    """Whether one has come since the innermost `noted` began; False where nothing is noted."""
    if not _ears:
        return False
    try:
        signals = _ears[-1].recv(4096, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    return not {signal.SIGINT, signal.SIGTERM}.isdisjoint(signals)
