"""What a queue without a memory of its own keeps in the database of requests.

That is the tokens of finished messages, ids that were cancelled, and what is on its way: results and dead
letters are written down here, in one step with their tokens, until the queue has taken them. Whoever sends
holds what it sends; what a process that died held is sent by another one, `HELD_SECONDS` later.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from batch_assets.dispatch.queues.base import CANCELLED_SECONDS, REMEMBERED_SECONDS, Finished, Known, Named
from batch_assets.requests.database import RequestsDatabase

HELD_SECONDS = 120.0
"""Longer than sending what is taken at once lasts, with all tries."""
MOST_AT_ONCE, MOST_BYTES_AT_ONCE = 80, 4 * 1_048_576
_MOST_FORGOTTEN = 1_000
_NO_DEADLINE = 2.0**53


@dataclass(frozen=True, slots=True)
class Unsent:
    """A result, or a dead letter, that the queue has not confirmed yet."""

    number: int
    token: str
    body: bytes
    is_dead: bool


def first_finished(
    database: RequestsDatabase, connection: sa.Connection, queue: str, tokens: Sequence[str], now: float
) -> set[str]:
    """Note the tokens, sorted ones, as finished; those that were not: the row is the proof of who was first."""
    values = (
        "SELECT value FROM json_each(:tokens)"
        if database.is_sqlite
        else "SELECT value FROM json_array_elements_text(CAST(:tokens AS json))"
    )
    noted = connection.execute(
        sa.text(
            "INSERT INTO requests_finished (queue, token, at) "
            f"SELECT :queue, value, :now FROM ({values}) AS given WHERE true ON CONFLICT DO NOTHING RETURNING token"
        ),
        {"queue": queue, "tokens": json.dumps(list(tokens)), "now": now},
    )
    return set(noted.scalars())


class Remembered:
    """The memory of the queue `key`; threads may share it. Its methods raise DatabaseAway."""

    def __init__(self, database: RequestsDatabase, key: str) -> None:
        self._database = database
        self._key = key
        self._results, self._dead = f"{key}/results", f"{key}/dead"

    def prepare(self) -> None:
        """Make the tables, where they are missing."""
        self._database.prepare()

    # Ids and tokens.

    def look_up(self, names: Sequence[Named]) -> Known:
        """What is known of messages."""
        with self._database.read() as connection:
            cancelled = self._which(connection, "requests_cancelled", "id", {name.id for name in names})
            finished = self._which(connection, "requests_finished", "token", {name.token for name in names})
        return Known(
            frozenset(name for name in names if name.id in cancelled),
            frozenset(name for name in names if name.token in finished),
        )

    def _which(self, connection: sa.Connection, table: str, column: str, values: set[str]) -> set[str]:
        query = sa.text(
            f"SELECT {column} FROM {table} WHERE queue = :queue AND {column} IN :values"
        ).bindparams(sa.bindparam("values", expanding=True))
        found: set[str] = set()
        listed = list(values)
        for start in range(0, len(listed), 500):
            asked = {"queue": self._key, "values": listed[start : start + 500]}
            found |= set(connection.scalars(query, asked))
        return found

    def cancel(self, message_id: str) -> None:
        """Keep that this id is cancelled."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            self._forget(connection, "requests_cancelled", "id", now - CANCELLED_SECONDS)
            connection.execute(
                sa.text(
                    "INSERT INTO requests_cancelled (queue, id, at) VALUES (:queue, :id, :now) "
                    "ON CONFLICT DO NOTHING"
                ),
                {"queue": self._key, "id": message_id, "now": now},
            )

    def ask_anew(self, message_ids: Iterable[str]) -> None:
        """Forget that ids were cancelled: whoever asks anew does not mean the cancellation of before."""
        rows = [{"queue": self._key, "id": each} for each in message_ids]
        if rows:
            with self._database.write() as connection:
                connection.execute(
                    sa.text("DELETE FROM requests_cancelled WHERE queue = :queue AND id = :id"), rows
                )

    # What is on its way.

    def finish(self, ended: Sequence[Finished], sender: str) -> None:
        """Note tokens, and with those that are new what `sender` is to send."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            self._forget(connection, "requests_finished", "token", now - REMEMBERED_SECONDS)
            # The row of the token is the proof: whoever adds it sends the result. They are added in one order
            # everywhere: two who finish the same messages would else wait for each other.
            tokens = sorted({end.token for end in ended})
            first = first_finished(self._database, connection, self._key, tokens, now)
            rows: list[dict[str, Any]] = []
            for end in ended:
                if end.token not in first:
                    continue
                first.discard(end.token)
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
                        f"VALUES (:queue, :token, :body, {_NO_DEADLINE}, :at, :until, :sender) "
                        "ON CONFLICT DO NOTHING"
                    ),
                    rows,
                )

    def _forget(self, connection: sa.Connection, table: str, column: str, before: float) -> None:
        connection.execute(
            sa.text(
                f"DELETE FROM {table} WHERE (queue, {column}) IN (SELECT queue, {column} FROM {table} "
                "WHERE queue = :queue AND at < :before ORDER BY at LIMIT :most)"
            ),
            {"queue": self._key, "before": before, "most": _MOST_FORGOTTEN},
        )

    def take_unsent(self, sender: str) -> list[Unsent]:
        """What `sender` holds or nobody holds any more, oldest first; it is held for `sender` from now."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            skip = "" if self._database.is_sqlite else " FOR UPDATE SKIP LOCKED"
            rows = connection.execute(
                sa.text(
                    "SELECT number, queue, token, length(body) AS size FROM requests_messages "
                    "WHERE queue IN (:results, :dead) AND held_until IS NOT NULL "
                    f"AND (claim = :sender OR held_until <= :now) ORDER BY number LIMIT {MOST_AT_ONCE}{skip}"
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

    def note_sent(self, sent: Sequence[Unsent]) -> None:
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
