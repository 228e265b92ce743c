"""Named places in the code at which a test may have the process die; how it dies is the test's own matter.

A point stands right behind a step whose effect outlives the process, and is named for that step. Without a test it
does nothing. Each name stands in one place, so that a point that has moved is still the one that its test means.
"""

from collections.abc import Callable

watchers: list[Callable[[str], object]] = []
"""Called with the name of each point that this process comes to. Empty but in tests."""


def crash_point(step: str) -> None:
    """`step` is done, and the process may die here: whoever comes after goes on."""
    for watcher in watchers:
        watcher(step)
