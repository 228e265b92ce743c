"""The peer of benchmarks that call a server: a loop of aiohttp that neither makes bodies nor looks at answers."""

import asyncio
import time
from collections.abc import Sequence

import aiohttp


async def send_bare(url: str, bodies: Sequence[bytes], in_flight: int) -> float:
    """Post all bodies, so many at a time; the seconds that took."""
    left = iter(bodies)
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def send() -> None:
            for body in left:
                async with session.post(url, data=body, headers=headers) as response:
                    assert response.status == 200
                    await response.read()

        start = time.perf_counter()
        await asyncio.gather(*(send() for _ in range(in_flight)))
        return time.perf_counter() - start
