"""Ctrl-C and SIGTERM held back while a transaction is open.

Python raises between any two instructions of the main thread, also between SQLite's BEGIN and the
line that would undo it: the write lock then stays with a process that waits for it itself.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def shielded() -> Iterator[list[int]]:
    """What comes in here is delivered at the end; until then its number is in the list.

    Other threads than the main one are never interrupted, and need no shield.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number in SIGNALS:
            signal.signal(number, lambda number, _: came.append(number))
        yield came
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that was not set by Python cannot be set again by it
                signal.signal(number, handler)
        for number in dict.fromkeys(came):
            signal.raise_signal(number)
