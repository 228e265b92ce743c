"""Talking to one Redis or Valkey server: no answer is a QueueAway, a refused password is said at once."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from batch_assets.dispatch.queues.base import QueueAway
from batch_assets.errors import ConfigurationError

ANSWER_SECONDS = 10.0
"""A server that takes longer is away."""


@dataclass(frozen=True)
class RedisURL:
    """`url` as redis-py takes it, with a password perhaps; `shown` without one."""

    url: str
    shown: str


class RedisServer:
    """A few connections, used in one event loop."""

    def __init__(self, url: RedisURL) -> None:
        try:
            import redis.asyncio
        except ModuleNotFoundError:
            raise ConfigurationError(
                f"{url.shown}: queues on Redis need redis-py; install it with pip install 'batch-assets[redis]'"
            ) from None
        self.shown = url.shown
        self._client: Any = redis.asyncio.Redis.from_url(
            url.url,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            health_check_interval=30,
        )
        self._scripts: dict[str, Any] = {}

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script in one step."""
        if script not in self._scripts:
            self._scripts[script] = self._client.register_script(script)
        with _told(self.shown):
            return await self._scripts[script](keys=list(keys), args=list(arguments))

    async def send(self, commands: Iterable[Sequence[Any]]) -> list[Any]:
        """Send commands in one go; what each has answered."""
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        with _told(self.shown):
            return await pipeline.execute()

    async def ask(self, command: str, arguments: Iterable[Sequence[Any]]) -> list[Any]:
        """The same command for each of the arguments."""
        return await self.send([(command, *each) for each in arguments])

    def subscriber(self) -> Any:
        """A subscription of redis-py's, with a connection of its own."""
        return self._client.pubsub(ignore_subscribe_messages=True)

    async def close(self) -> None:
        await self._client.aclose()


@contextlib.contextmanager
def _told(shown: str) -> Iterator[None]:
    """Errors of redis-py as ours."""
    import redis.exceptions

    try:
        yield
    except (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise ConfigurationError(
            f"{shown} says: {error}; look at the user and password in the URL"
        ) from error
    except (redis.exceptions.RedisError, OSError) as error:
        raise QueueAway(f"{shown}: {error}") from error
