"""A queue on Redis or Valkey: a sorted set by deadline, claims that run out, and results in a list.

What the server does in one step is in `redis_scripts.py`; channels, as first published, are in `redis_channel.py`.
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from batch_assets.dispatch.messages import Message, read_if_valid
from batch_assets.dispatch.queues import redis_scripts
from batch_assets.dispatch.queues.base import (
    CANCELLED_SECONDS,
    NO_DEADLINE,
    REMEMBERED_SECONDS,
    Claimed,
    Depth,
    Ending,
    Finished,
    Known,
    Named,
    Returned,
)
from batch_assets.dispatch.queues.redis_server import RedisServer, RedisURL
from batch_assets.errors import ConfigurationError


class RedisQueue:
    """Messages in the sorted set `name`, results in the list `results`."""

    is_ordered = True

    def __init__(self, url: RedisURL, name: str, results: str | None = None) -> None:
        self.name = name
        self.clock_ahead = 0.0
        self._server = RedisServer(url)
        self._results = results or f"{name}-results"
        self._keys = [name, *(f"{name}-{kind}" for kind in ("claimed", "state", "finished"))]
        self._keys += [self._results, f"{name}-dead", f"{name}-endings"]
        self._results_are = "list"

    async def open(self) -> None:
        if len(set(self._keys)) < len(self._keys):
            raise ConfigurationError(
                f"{self._server.shown}: results {self._results} have the name of a key of the queue {self.name}; "
                "name others"
            )
        kinds = await self._server.ask("TYPE", [[key] for key in self._keys])
        wanted = ["zset", "zset", "hash", "zset", "list", "list", "hash"]
        for key, kind, right in zip(self._keys, kinds, wanted, strict=True):
            if kind.decode() not in (right, "none"):
                raise ConfigurationError(
                    f"{self._server.shown}: key {key} is a {kind.decode()}, and the queue {self.name} needs a {right} "
                    "of that name; name another queue, or other results"
                )

    async def close(self) -> None:
        await self._server.close()

    async def put(self, bodies: Sequence[bytes]) -> None:
        """As llm-d's producer does: an id that was cancelled before is forgotten, the token of the new one known."""
        now = time.time() + self.clock_ahead
        commands: list[tuple[Any, ...]] = []
        for body in bodies:
            message = read_if_valid(body)
            score = _score_of(message)
            if message is not None:
                seconds = max(1, int(min(score - now, CANCELLED_SECONDS)))
                commands.append(("DEL", f"request-cancel:{message.id}"))
                commands.append(("SET", f"request-active:{message.id}", message.token, "EX", seconds))
            commands.append(("ZADD", self._keys[0], score, body))
        await self._server.send(commands)

    async def claim(self, most: int, lease_seconds: float, *, expired_only: bool = False) -> list[Claimed]:
        claim = uuid.uuid4().hex
        arguments = (most, lease_seconds, claim, "1" if expired_only else "")
        now, *found = await self._server.run(redis_scripts.CLAIM, self._keys, arguments)
        self.clock_ahead = float(now) - time.time()
        return [
            Claimed(body, claim, attempts) for body, attempts in zip(found[::2], found[1::2], strict=True)
        ]

    async def extend(self, messages: Sequence[Claimed], lease_seconds: float) -> None:
        pairs = [part for message in messages for part in (message.body, message.claim)]
        await self._server.run(redis_scripts.EXTEND, self._keys, [lease_seconds, *pairs])

    async def look_up(self, names: Sequence[Named]) -> Known:
        if not names:
            return Known(frozenset(), frozenset())
        cancelled, finished = await self._server.send(
            [
                ("MGET", *(f"request-cancel:{name.id}" for name in names)),
                ("ZMSCORE", self._keys[3], *(name.token for name in names)),
            ]
        )
        return Known(
            frozenset(name for name, mark in zip(names, cancelled, strict=True) if mark is not None),
            frozenset(name for name, score in zip(names, finished, strict=True) if score is not None),
        )

    async def finish(self, ended: Sequence[Finished]) -> None:
        arguments: list[Any] = [self._results_are, REMEMBERED_SECONDS]
        for end in ended:
            arguments += [end.message.body, end.token, end.result or b"", end.ending or ""]
        await self._server.run(redis_scripts.FINISH, self._keys, arguments)

    async def give_back(self, returned: Sequence[Returned]) -> None:
        arguments: list[Any] = []
        for each in returned:
            arguments += [each.message.body, each.message.claim, each.attempts, each.pause]
        await self._server.run(redis_scripts.GIVE_BACK, self._keys, arguments)

    async def cancel(self, message_id: str) -> None:
        active = (await self._server.send([("GET", f"request-active:{message_id}")]))[0]
        await self._server.send(
            [("SET", f"request-cancel:{message_id}", active or b"1", "EX", int(CANCELLED_SECONDS))]
        )

    async def take_results(self, most: int) -> list[bytes]:
        return (await self._server.send([("RPOP", self._results, most)]))[0] or []

    async def depth(self) -> Depth:
        waiting, claimed, results, first, now = await self._server.run(redis_scripts.DEPTH, self._keys, ())
        self.clock_ahead = float(now) - time.time()
        deadline = float(first) if first else NO_DEADLINE
        return Depth(waiting, claimed, results, first_deadline=deadline if deadline < NO_DEADLINE else None)

    async def endings(self) -> Mapping[Ending, int]:
        counts: dict[bytes, bytes] = (await self._server.send([("HGETALL", self._keys[6])]))[0]
        return {ending: int(counts.get(ending.encode(), 0)) for ending in Ending}


def score_of(body: bytes) -> float:
    """Where a message stands in the sorted set: its deadline; the worker says what is wrong with it."""
    return _score_of(read_if_valid(body))


def _score_of(message: Message | None) -> float:
    return NO_DEADLINE if message is None or message.deadline is None else message.deadline
