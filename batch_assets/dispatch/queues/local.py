"""The embedded queue: messages in the database of requests, which needs no server.

Among equal deadlines the order is that of arrival. SQLite's file is written by one process at a time: what comes
together goes into one transaction.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import sqlalchemy as sa

from batch_assets.dispatch.messages import Message, read_if_valid, token_of
from batch_assets.dispatch.queues.base import (
    NO_DEADLINE,
    Claimed,
    Depth,
    Ending,
    Finished,
    Known,
    Named,
    QueueAway,
    Returned,
)
from batch_assets.dispatch.queues.local_depth import depth_of
from batch_assets.dispatch.queues.remembered import Remembered, count_endings, first_ends
from batch_assets.requests.database import DatabaseAway, RequestsDatabase

Made = TypeVar("Made")


class LocalQueue:
    """Messages in the queue `name` of a requests database, results in the queue `results` of the same."""

    is_ordered = True

    def __init__(self, database: RequestsDatabase, name: str, results: str | None = None) -> None:
        self.name = name
        self.clock_ahead = 0.0
        self._database = database
        self._remembered = Remembered(database, name)
        self._results = results or f"{name}-results"
        # One thread: SQLite has one writer, and steps stay in their order.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"queue-{name}")

    async def open(self) -> None:
        await self._do(self._database.prepare)

    async def close(self) -> None:
        self._thread.submit(self._database.dispose)
        self._thread.shutdown(wait=False)

    async def put(self, bodies: Sequence[bytes]) -> None:
        read = [(body, read_if_valid(body)) for body in bodies]

        def add() -> None:
            self._remembered.ask_anew({message.id for _, message in read if message is not None})
            with self._database.write() as connection:
                now = self._database.now(connection)
                connection.execute(
                    sa.text(
                        "INSERT INTO requests_messages (queue, id, token, body, deadline, arrived) "
                        "VALUES (:queue, :id, :token, :body, :deadline, :arrived) ON CONFLICT DO NOTHING"
                    ),
                    [self._row(body, message, now) for body, message in read],
                )

        if bodies:
            await self._do(add)

    def _row(self, body: bytes, message: Message | None, now: float) -> dict[str, Any]:
        row: dict[str, Any] = {"queue": self.name, "body": body, "arrived": now}
        if message is None:
            return row | {"id": None, "token": token_of("", "", body), "deadline": NO_DEADLINE}
        deadline = NO_DEADLINE if message.deadline is None else message.deadline
        return row | {"id": message.id, "token": message.token, "deadline": deadline}

    async def claim(self, most: int, lease_seconds: float, *, expired_only: bool = False) -> list[Claimed]:
        claim = uuid.uuid4().hex

        def take() -> list[Claimed]:
            with self._database.write() as connection:
                now = self._database.now(connection)
                connection.execute(
                    sa.text(
                        "UPDATE requests_messages SET held_until = NULL, claim = '' "
                        "WHERE queue = :queue AND held_until <= :now"
                    ),
                    {"queue": self.name, "now": now},
                )
                expired = " AND deadline <= :now" if expired_only else ""
                rows = connection.execute(
                    sa.text(
                        "SELECT number, body, attempts, arrived FROM requests_messages "
                        f"WHERE queue = :queue AND held_until IS NULL{expired} "
                        f"ORDER BY deadline, number LIMIT :most{self._database.skip_locked}"
                    ),
                    {"queue": self.name, "now": now, "most": most},
                ).all()
                if rows:
                    connection.execute(
                        sa.text(
                            "UPDATE requests_messages SET held_until = :until, claim = :claim WHERE number = :number"
                        ),
                        [
                            {
                                "until": now + lease_seconds,
                                "claim": f"{claim}:{row.number}",
                                "number": row.number,
                            }
                            for row in rows
                        ],
                    )
                self.clock_ahead = now - time.time()
                return [
                    Claimed(bytes(row.body), f"{claim}:{row.number}", row.attempts, row.arrived)
                    for row in rows
                ]

        return await self._do(take)

    async def extend(self, messages: Sequence[Claimed], lease_seconds: float) -> None:
        def hold() -> None:
            with self._database.write() as connection:
                until = self._database.now(connection) + lease_seconds
                connection.execute(
                    sa.text(
                        "UPDATE requests_messages SET held_until = :until WHERE number = :number AND claim = :claim"
                    ),
                    [_row_of(message) | {"until": until} for message in messages],
                )

        if messages:
            await self._do(hold)

    async def look_up(self, names: Sequence[Named]) -> Known:
        return await self._do(lambda: self._remembered.look_up(names))

    async def finish(self, ended: Sequence[Finished]) -> None:
        def store() -> None:
            with self._database.write() as connection:
                now = self._database.now(connection)
                ends = first_ends(self._database, connection, self.name, ended, now)
                results = [
                    {"queue": self._results, "body": end.result} for end in ends if end.result is not None
                ]
                dead = [
                    {"queue": self.name, "body": end.message.body, "at": now} for end in ends if end.is_dead
                ]
                if results:
                    connection.execute(
                        sa.text("INSERT INTO requests_results (queue, body) VALUES (:queue, :body)"), results
                    )
                if dead:
                    connection.execute(
                        sa.text("INSERT INTO requests_dead (queue, body, at) VALUES (:queue, :body, :at)"),
                        dead,
                    )
                connection.execute(
                    sa.text("DELETE FROM requests_messages WHERE number = :number"),
                    # In one order, as with the tokens.
                    [
                        {"number": number}
                        for number in sorted(_row_of(end.message)["number"] for end in ended)
                    ],
                )
                count_endings(connection, self.name, ends)

        if ended:
            await self._do(store)

    async def give_back(self, returned: Sequence[Returned]) -> None:
        def release() -> None:
            with self._database.write() as connection:
                now = self._database.now(connection)
                connection.execute(
                    sa.text(
                        "UPDATE requests_messages SET held_until = :until, claim = '', attempts = :attempts "
                        "WHERE number = :number AND claim = :claim"
                    ),
                    [
                        _row_of(each.message)
                        | {"attempts": each.attempts, "until": now + each.pause if each.pause else None}
                        for each in returned
                    ],
                )

        if returned:
            await self._do(release)

    async def cancel(self, message_id: str) -> None:
        await self._do(lambda: self._remembered.cancel(message_id))

    async def take_results(self, most: int) -> list[bytes]:
        def take() -> list[bytes]:
            with self._database.write() as connection:
                rows = connection.execute(
                    sa.text(
                        "SELECT number, body FROM requests_results WHERE queue = :queue "
                        f"ORDER BY number LIMIT :most{self._database.skip_locked}"
                    ),
                    {"queue": self._results, "most": most},
                ).all()
                if rows:
                    connection.execute(
                        sa.text("DELETE FROM requests_results WHERE number = :number"),
                        [{"number": row.number} for row in rows],
                    )
                return [bytes(row.body) for row in rows]

        return await self._do(take)

    async def depth(self) -> Depth:
        def count() -> Depth:
            self._database.prepare()
            with self._database.read() as connection:
                now = self._database.now(connection)
                self.clock_ahead = now - time.time()
                return depth_of(connection, self.name, self._results, now)

        return await self._do(count)

    async def endings(self) -> Mapping[Ending, int]:
        def count() -> Mapping[Ending, int]:
            self._database.prepare()
            return self._remembered.endings()

        return await self._do(count)

    async def _do(self, step: Callable[[], Made]) -> Made:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, step)
        except DatabaseAway as error:
            raise QueueAway(str(error)) from error


def _row_of(message: Claimed) -> dict[str, Any]:
    return {"claim": message.claim, "number": int(message.claim.rpartition(":")[2])}
