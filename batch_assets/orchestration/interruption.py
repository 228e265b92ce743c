"""Ctrl-C and SIGTERM of a command that runs Dagster in its own process.

Dagster catches them while it keeps its own books, and drops one that comes there as a step ends
(`capture_interrupts` forgets it as it leaves); an exception that a handler raises within a callback
of the garbage collector is lost too. Python notes every signal also in a wakeup socket, whoever
handles it: what is in there has come.
"""

import contextlib
import signal
import socket
from collections.abc import Iterator

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
            yield
        finally:
            _ears.remove(ear)
            signal.set_wakeup_fd(before)


def has_come() -> bool:
    """Whether one has come since the innermost `noted` began; False where nothing is noted."""
    if not _ears:
        return False
    try:
        signals = _ears[-1].recv(4096, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    return not {signal.SIGINT, signal.SIGTERM}.isdisjoint(signals)
