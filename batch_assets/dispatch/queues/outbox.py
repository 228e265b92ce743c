"""Results and dead letters on their way to a queue elsewhere: in the database of requests until that has taken them.

They are written down in one step with the tokens of their messages. Whoever sends holds what it sends; what a process
that died held is sent by another one, `HELD_SECONDS` later.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from batch_assets.dispatch.queues.base import NO_DEADLINE, Finished
from batch_assets.dispatch.queues.remembered import count_endings, first_ends
from batch_assets.requests.database import RequestsDatabase

HELD_SECONDS = 120.0
"""Longer than sending what is taken at once lasts, with all tries."""
MOST_AT_ONCE, MOST_BYTES_AT_ONCE = 80, 4 * 1_048_576


@dataclass(frozen=True, slots=True)
class Unsent:
    """A result, or a dead letter, that the queue has not confirmed yet."""

    number: int
    token: str
    body: bytes
    is_dead: bool


class Outbox:
    """What is on its way from the queue `key`; threads may share it. Its methods raise DatabaseAway."""

    def __init__(self, database: RequestsDatabase, key: str) -> None:
        self._database = database
        self._key = key
        self._results, self._dead = f"{key}/results", f"{key}/dead"

    def add(self, ended: Sequence[Finished], sender: str) -> None:
        """Note that messages are finished, and with those that were not what `sender` is to send."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            rows: list[dict[str, Any]] = []
            ends = first_ends(self._database, connection, self._key, ended, now)
            for end in ends:
                row = {"token": end.token, "at": now, "until": now + HELD_SECONDS, "sender": sender}
                if end.result is not None:
                    rows.append(row | {"queue": self._results, "body": end.result})
                if end.is_dead:
                    rows.append(row | {"queue": self._dead, "body": end.message.body})
            if rows:
                connection.execute(
                    sa.text(
                        "INSERT INTO requests_messages "
                        "(queue, token, body, deadline, arrived, held_until, claim) "
                        f"VALUES (:queue, :token, :body, {NO_DEADLINE}, :at, :until, :sender) "
                        "ON CONFLICT DO NOTHING"
                    ),
                    rows,
                )
            count_endings(connection, self._key, ends)

    def take(self, sender: str) -> list[Unsent]:
        """What `sender` holds or nobody holds any more, oldest first; it is held for `sender` from now."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            rows = connection.execute(
                sa.text(
                    "SELECT number, queue, token, length(body) AS size FROM requests_messages "
                    "WHERE queue IN (:results, :dead) AND held_until IS NOT NULL "
                    "AND (claim = :sender OR held_until <= :now) "
                    f"ORDER BY number LIMIT {MOST_AT_ONCE}{self._database.skip_locked}"
                ),
                {"results": self._results, "dead": self._dead, "sender": sender, "now": now},
            ).all()
            taken: list[Unsent] = []
            size = 0
            for row in rows:
                size += row.size
                if taken and size > MOST_BYTES_AT_ONCE:
                    break
                body = connection.scalar(
                    sa.text("SELECT body FROM requests_messages WHERE number = :number"),
                    {"number": row.number},
                )
                taken.append(Unsent(row.number, row.token, bytes(body or b""), row.queue == self._dead))
            if taken:
                connection.execute(
                    sa.text(
                        "UPDATE requests_messages SET held_until = :until, claim = :sender "
                        "WHERE number = :number"
                    ),
                    [
                        {"until": now + HELD_SECONDS, "sender": sender, "number": each.number}
                        for each in taken
                    ],
                )
            return taken

    def remove(self, sent: Sequence[Unsent]) -> None:
        """The queue has taken these."""
        if sent:
            with self._database.write() as connection:
                self._remove(connection, sent)

    def bury(self, refused: Unsent) -> None:
        """Keep a dead letter in the database, which the queue of dead letters does not take."""
        with self._database.write() as connection:
            connection.execute(
                sa.text("INSERT INTO requests_dead (queue, body, at) VALUES (:queue, :body, :now)"),
                {"queue": self._key, "body": refused.body, "now": self._database.now(connection)},
            )
            self._remove(connection, [refused])

    def _remove(self, connection: sa.Connection, gone: Sequence[Unsent]) -> None:
        connection.execute(
            sa.text("DELETE FROM requests_messages WHERE number = :number"),
            [{"number": each.number} for each in gone],
        )
