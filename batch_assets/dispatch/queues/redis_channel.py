"""Channels of Redis, as llm-d's batch processor was first published: PUBLISH in, PUBLISH out.

Whatever a worker hears goes into a sorted set at once, under the name of the retry queue, and is dealt with as in any
Redis queue. So what a worker has heard outlives it, and several workers share it; what is published while none listens
is lost, and so is a result to which nobody has subscribed.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from batch_assets.dispatch.queues.base import QueueAway
from batch_assets.dispatch.queues.redis import RedisQueue, score_of
from batch_assets.dispatch.queues.redis_server import ANSWER_SECONDS, RedisURL
from batch_assets.errors import ConfigurationError
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS

logger = plain_logger(__name__)


class RedisChannel(RedisQueue):
    """Messages heard on the channel `channel`; `retry` names the sorted set that keeps them until they are finished."""

    def __init__(self, url: RedisURL, channel: str, retry: str, results: str | None = None) -> None:
        super().__init__(url, retry, results or f"{channel}-results")
        self.name = channel
        self._results_are = "channel"
        self._listening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await super().open()
        heard = asyncio.Event()
        self._listening = asyncio.create_task(self._listen(heard))
        await heard.wait()

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        await super().close()

    async def put(self, bodies: Sequence[bytes]) -> None:
        await self._server.send([("PUBLISH", self.name, body) for body in bodies])

    async def take_results(self, most: int) -> list[bytes]:
        raise ConfigurationError(
            f"{self._server.shown}: results on the channel {self._results} are heard by who has subscribed to it: "
            f"redis-cli SUBSCRIBE {self._results}"
        )

    async def _listen(self, heard: asyncio.Event) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            subscriber = self._server.subscriber()
            try:
                await subscriber.subscribe(self.name)
                await subscriber.get_message(timeout=ANSWER_SECONDS)  # it has heard us
                heard.set()
                pause = FIRST_PAUSE_SECONDS
                await self._keep(subscriber)
            except (QueueAway, OSError, _redis_error()) as error:
                heard.set()
                logger.warning(
                    "%s: channel %s is not heard (%s): what is published now is lost; subscribing again",
                    self._server.shown, self.name, error,
                )  # fmt: skip
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            finally:
                with contextlib.suppress(OSError, _redis_error()):
                    await subscriber.aclose()

    async def _keep(self, subscriber: Any) -> None:
        async for message in subscriber.listen():
            body = bytes(message["data"])
            await self._server.send([("ZADD", self._keys[0], score_of(body), body)])


def _redis_error() -> type[Exception]:
    import redis.exceptions

    return redis.exceptions.RedisError
