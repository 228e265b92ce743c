"""Waiting for a state. A deadline only ends what would hang for ever: it is never what a test is about."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic, sleep  # the real ones, also where a test skips pauses
from typing import TypeVar

Made = TypeVar("Made")

PATIENCE_SECONDS = 300.0
"""More than any step of a test takes on a slow machine that others use too; pytest's own limit is above it."""
PAUSE_SECONDS = 0.002


def wait_until(
    condition: Callable[[], object],
    told: object = "",
    pause: float = PAUSE_SECONDS,
    patience: float = PATIENCE_SECONDS,
) -> None:
    """Return as soon as `condition` holds.

    Raises AssertionError with `told`, or with what it returns if it can be called, where that never happens.
    """
    deadline = monotonic() + patience
    while not condition():
        if monotonic() > deadline:
            raise AssertionError(f"waited in vain: {told() if callable(told) else told}")
        sleep(pause)


async def until(ask: Callable[[], Awaitable[Made]], told: str, pause: float = 0.01) -> Made:
    """What is returned as soon as that is something. Raises AssertionError with `told` where that never happens."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (made := await ask()):
                await asyncio.sleep(pause)
            return made
    except TimeoutError:
        raise AssertionError(f"waited in vain: {told}") from None
