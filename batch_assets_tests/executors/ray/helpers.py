"""Stand-ins for a Ray: none is started, and time passes as a test says."""

from collections.abc import Callable
from typing import Any


class Clock:
    """Time that passes as it is slept away."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def alive() -> None:
    pass


def raising(error: Exception) -> Callable[..., Any]:
    """What ends by this error, whatever it is asked."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


breaks = raising(ConnectionResetError("reset by peer"))
