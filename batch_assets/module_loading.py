"""Loading many modules without the garbage collector, for the places that load thousands: commands and models.

What modules make stays to the end of the process. The collector would go through it again and again
while it grows, and once more as the process ends: half of the time that a command needs to answer.
"""

import atexit
import contextlib
import gc
import importlib
import sys
from collections.abc import Iterator

atexit.register(gc.freeze)  # the process ends: nothing is worth being looked for


@contextlib.contextmanager
def collector_at_rest() -> Iterator[None]:
    """No collection in here, and never one of what is made in here."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if enabled:
            gc.enable()


def load_modules(*names: str) -> None:
    """Import modules for those who import them afterwards. Raises ImportError."""
    if missing := [name for name in names if name not in sys.modules]:
        with collector_at_rest():
            for name in missing:
                importlib.import_module(name)
