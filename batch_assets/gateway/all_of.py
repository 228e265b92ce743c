"""Several coroutines at once, of which the first that fails ends all."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

Made = TypeVar("Made")


async def all_of(coroutines: Iterable[Coroutine[Any, Any, Made]]) -> list[Made]:
    """What each returns, in order; an error is raised as it is (a TaskGroup raises groups) once all have ended."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        if any(not task.done() for task in tasks):
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
