"""The embedded queue: messages in the database of requests, which needs no server.

Among equal deadlines the order is that of arrival. SQLite's file is written by one process at a time: what comes
together goes into one transaction.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import sqlalchemy as sa

from batch_assets.dispatch.messages import InvalidMessage, parse, token_of
from batch_assets.dispatch.queues.base import (
    CANCELLED_SECONDS,
    REMEMBERED_SECONDS,
    Claimed,
    Depth,
    Finished,
    Known,
    Named,
    QueueAway,
    Returned,
)
from batch_assets.dispatch.queues.remembered import first_finished
from batch_assets.requests.database import DatabaseAway, RequestsDatabase

Made = TypeVar("Made")
NO_DEADLINE = 2.0**53
_MOST_FORGOTTEN = 1_000
_DEPTH = (
    "SELECT count(*) FROM requests_messages WHERE queue = :queue AND held_until IS NULL",
    "SELECT count(*) FROM requests_messages WHERE queue = :queue AND held_until IS NOT NULL",
    "SELECT count(*) FROM requests_results WHERE queue = :results",
    "SELECT arrived FROM requests_messages WHERE queue = :queue ORDER BY number LIMIT 1",
    "SELECT min(deadline) FROM requests_messages WHERE queue = :queue AND held_until IS NULL",
)


class LocalQueue:
    """Messages in the queue `name` of a requests database, results in the queue `results` of the same."""

    is_ordered = True

    def __init__(self, database: RequestsDatabase, name: str, results: str | None = None) -> None:
        self.name = name
        self.clock_ahead = 0.0
        self._database = database
        self._results = results or f"{name}-results"
        # One thread: SQLite has one writer, and steps stay in their order.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"queue-{name}")

    async def open(self) -> None:
        await self._do(self._database.prepare)

    async def close(self) -> None:
        self._thread.submit(self._database.dispose)
        self._thread.shutdown(wait=False)

    async def put(self, bodies: Sequence[bytes]) -> None:
        def add() -> None:
            with self._database.write() as connection:
                now = self._database.now(connection)
                rows = [self._row(body, now) for body in bodies]
                connection.execute(
                    sa.text(
                        "INSERT INTO requests_messages (queue, id, token, body, deadline, arrived) "
                        "VALUES (:queue, :id, :token, :body, :deadline, :arrived) ON CONFLICT DO NOTHING"
                    ),
                    rows,
                )
                # Who asks anew for an id does not mean the cancellation of before.
                connection.execute(
                    sa.text("DELETE FROM requests_cancelled WHERE queue = :queue AND id = :id"),
                    [{"queue": self.name, "id": row["id"]} for row in rows],
                )

        if bodies:
            await self._do(add)

    def _row(self, body: bytes, now: float) -> dict[str, Any]:
        row: dict[str, Any] = {"queue": self.name, "body": body, "arrived": now}
        try:
            message = parse(body)
        except InvalidMessage:  # the worker says so
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
                skip = "" if self._database.is_sqlite else " FOR UPDATE SKIP LOCKED"
                expired = " AND deadline <= :now" if expired_only else ""
                rows = connection.execute(
                    sa.text(
                        "SELECT number, body, attempts, arrived FROM requests_messages "
                        f"WHERE queue = :queue AND held_until IS NULL{expired} "
                        f"ORDER BY deadline, number LIMIT :most{skip}"
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
        def look() -> Known:
            with self._database.read() as connection:
                cancelled = self._which(connection, "requests_cancelled", "id", {name.id for name in names})
                finished = self._which(
                    connection, "requests_finished", "token", {name.token for name in names}
                )
            return Known(
                frozenset(name for name in names if name.id in cancelled),
                frozenset(name for name in names if name.token in finished),
            )

        return await self._do(look) if names else Known(frozenset(), frozenset())

    def _which(self, connection: sa.Connection, table: str, column: str, values: set[str]) -> set[str]:
        query = sa.text(
            f"SELECT {column} FROM {table} WHERE queue = :queue AND {column} IN :values"
        ).bindparams(sa.bindparam("values", expanding=True))
        found: set[str] = set()
        listed = list(values)
        for start in range(0, len(listed), 500):
            found |= set(
                connection.scalars(query, {"queue": self.name, "values": listed[start : start + 500]})
            )
        return found

    async def finish(self, ended: Sequence[Finished]) -> None:
        def store() -> None:
            with self._database.write() as connection:
                now = self._database.now(connection)
                self._forget(connection, now)
                # The row of the token is the proof: whoever adds it stores the result.
                # In one order everywhere: two who finish the same messages would else wait for each other.
                tokens = sorted({end.token for end in ended})
                first = first_finished(self._database, connection, self.name, tokens, now)
                results: list[dict[str, Any]] = []
                dead: list[dict[str, Any]] = []
                for end in ended:
                    if end.token in first:
                        first.discard(end.token)
                        if end.result is not None:
                            results.append({"queue": self._results, "body": end.result})
                        if end.is_dead:
                            dead.append({"queue": self.name, "body": end.message.body, "at": now})
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
                    [
                        {"number": number}
                        for number in sorted(_row_of(end.message)["number"] for end in ended)
                    ],
                )

        if ended:
            await self._do(store)

    def _forget(self, connection: sa.Connection, now: float) -> None:
        connection.execute(
            sa.text("DELETE FROM requests_cancelled WHERE at < :before"), {"before": now - CANCELLED_SECONDS}
        )
        connection.execute(
            sa.text(
                "DELETE FROM requests_finished WHERE (queue, token) IN (SELECT queue, token FROM requests_finished "
                "WHERE at < :before ORDER BY at LIMIT :most)"
            ),
            {"before": now - REMEMBERED_SECONDS, "most": _MOST_FORGOTTEN},
        )

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
        def mark() -> None:
            with self._database.write() as connection:
                connection.execute(
                    sa.text(
                        "INSERT INTO requests_cancelled (queue, id, at) VALUES (:queue, :id, :now) "
                        "ON CONFLICT DO NOTHING"
                    ),
                    {"queue": self.name, "id": message_id, "now": self._database.now(connection)},
                )

        await self._do(mark)

    async def take_results(self, most: int) -> list[bytes]:
        def take() -> list[bytes]:
            with self._database.write() as connection:
                skip = "" if self._database.is_sqlite else " FOR UPDATE SKIP LOCKED"
                rows = connection.execute(
                    sa.text(
                        "SELECT number, body FROM requests_results WHERE queue = :queue "
                        f"ORDER BY number LIMIT :most{skip}"
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
            with self._database.read() as connection:
                asked = {"queue": self.name, "results": self._results}
                waiting, held, results, oldest, first = (
                    connection.scalar(sa.text(query), asked) for query in _DEPTH
                )
            return Depth(
                waiting or 0, held or 0, results or 0, oldest, None if first == NO_DEADLINE else first
            )

        return await self._do(count)

    async def _do(self, step: Callable[[], Made]) -> Made:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, step)
        except DatabaseAway as error:
            raise QueueAway(str(error)) from error


def _row_of(message: Claimed) -> dict[str, Any]:
    return {"claim": message.claim, "number": int(message.claim.rpartition(":")[2])}
