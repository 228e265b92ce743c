"""Steps of tests at a queue: messages, ends, and as many objects for one queue as a test has workers."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence

from batch_assets.dispatch.messages import parse
from batch_assets.dispatch.queues.base import Claimed, Ending, Finished, Named, Queue
from batch_assets_tests.waiting import until

MakeQueue = Callable[[], Queue]
"""Another object for the same queue, as another worker has one."""
FAR = 4_000_000_000
"""A deadline that no run of these tests reaches."""
LONG, SHORT = 600.0, 0.05
"""A lease that no test outlives, and one that is to run out."""


def message(name: str, deadline: object = FAR, payload: str = "{}") -> bytes:
    text = f'{{"id":{json.dumps(name)},"deadline":{json.dumps(deadline)},"payload":{payload}}}'
    return text.replace('"payload":{}', '"payload":{"prompt":"a"}').encode()


def named(body: bytes) -> Named:
    read = parse(body)
    return Named(read.id, read.token)


def ended(claimed: Claimed, result: bytes | None, ending: Ending = Ending.COMPLETED) -> Finished:
    return Finished(claimed, named(claimed.body).token, result, ending)


def in_queue(make: MakeQueue, steps: Callable[..., Awaitable[None]], workers: int = 1) -> None:
    """Run `steps` with so many objects for one queue, opened."""

    async def main() -> None:
        queues = [make() for _ in range(workers)]
        try:
            for queue in queues:
                await queue.open()
            await steps(*queues)
        finally:
            for queue in queues:
                await queue.close()

    asyncio.run(main())


async def claim_one(queue: Queue, lease_seconds: float = LONG) -> Claimed:
    (claimed,) = await queue.claim(10, lease_seconds)
    return claimed


async def claim_again(queue: Queue, most: int = 10) -> list[Claimed]:
    """Ask until there is something."""

    async def claimed() -> list[Claimed]:
        return await queue.claim(most, LONG)

    return await until(claimed, "no message is delivered again")


async def passed_on(first: Queue, second: Queue) -> tuple[Claimed, Claimed]:
    """A message whose lease the first has let run out, and the second holds now."""
    await first.put([message("a")])
    stale = await claim_one(first, SHORT)
    (held,) = await claim_again(second)
    return stale, held


def bodies(claimed: Sequence[Claimed]) -> list[bytes]:
    return [each.body for each in claimed]
