"""What people do to a queue by hand: `dispatch --put`, `--get` and `--cancel`."""

import asyncio
import contextlib
import os
import stat
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from batch_assets.cli.console import emit
from batch_assets.dispatch.queues.base import Queue, QueueAway
from batch_assets.dispatch.queues.urls import OpenDatabase, queue_of
from batch_assets.errors import ConfigurationError
from batch_assets.settings.dispatch import DispatchSettings

PUT_AT_ONCE = 500
RESULTS_AT_ONCE = 500
"""Taken at a time where they go into a file, which takes them at once; a pipe may stand still or break."""
POLL_SECONDS = 0.2


def by_hand(
    settings: DispatchSettings,
    open_database: OpenDatabase,
    put: Path | None,
    get: int | None,
    cancel: str | None,
) -> None:
    """Do the one thing that is asked for. Raises ConfigurationError and QueueAway."""
    first = settings.queues[0]
    if len(settings.queues) > 1:
        raise ConfigurationError("--put, --get and --cancel need one queue; name one by --queue")

    async def act(step: Callable[[Queue], Awaitable[None]]) -> None:
        queue = queue_of(first.url, first.results or settings.results, open_database)
        await queue.open()
        try:
            await step(queue)
        finally:
            await queue.close()

    if put is not None:
        asyncio.run(act(lambda queue: _put(queue, put)))
    elif cancel is not None:
        asyncio.run(act(lambda queue: queue.cancel(cancel)))
    elif get is not None:
        asyncio.run(act(lambda queue: _get(queue, get)))


async def _put(queue: Queue, file: Path) -> None:
    number = 0
    batch: list[bytes] = []
    try:
        with contextlib.ExitStack() as stack:
            lines = sys.stdin.buffer if str(file) == "-" else stack.enter_context(file.open("rb"))
            for line in _messages(lines):
                batch.append(line)
                if len(batch) >= PUT_AT_ONCE:
                    await queue.put(batch)
                    number, batch = number + len(batch), []
        if batch:
            await queue.put(batch)
            number += len(batch)
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror or error}; {number} messages were put") from error
    except QueueAway as error:
        raise QueueAway(f"{error}; {number} messages were put: put the others again") from error
    emit(f"put {number} messages into {queue.name}")


def _messages(lines: Any) -> Iterator[bytes]:
    for line in lines:
        message = line.rstrip(b"\r\n")
        if message.strip():
            yield message


async def _get(queue: Queue, most: int) -> None:
    got = 0
    at_once = RESULTS_AT_ONCE if stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode) else 1
    while most == 0 or got < most:
        results = await queue.take_results(min(most - got, at_once) if most else at_once)
        for result in results:
            # A line break stands only between the parts of a JSON text: within strings it is escaped.
            sys.stdout.buffer.write(result.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n")
        sys.stdout.buffer.flush()
        got += len(results)
        if not results:
            await asyncio.sleep(POLL_SECONDS)
