"""What the database of requests remembers of messages: which are finished and how, and which ids are cancelled."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa

from batch_assets.dispatch.queues.base import (
    CANCELLED_SECONDS,
    REMEMBERED_SECONDS,
    Ending,
    Finished,
    Known,
    Named,
)
from batch_assets.requests.database import RequestsDatabase

_MOST_FORGOTTEN = 1_000
"""At a time: whoever finishes messages does not wait for a day's memory to go."""


def first_ends(
    database: RequestsDatabase, connection: sa.Connection, queue: str, ended: Sequence[Finished], now: float
) -> list[Finished]:
    """Note the messages as finished; the ends that are the first of their message, and so count.

    The row of the token is the proof: whoever adds it was first. Rows are added in one order everywhere: two who
    finish the same messages would else wait for each other.
    """
    _forget(connection, queue, "requests_finished", "token", now - REMEMBERED_SECONDS)
    values = (
        "SELECT value FROM json_each(:tokens)"
        if database.is_sqlite
        else "SELECT value FROM json_array_elements_text(CAST(:tokens AS json))"
    )
    noted = connection.scalars(
        sa.text(
            "INSERT INTO requests_finished (queue, token, at) "
            f"SELECT :queue, value, :now FROM ({values}) AS given WHERE true ON CONFLICT DO NOTHING RETURNING token"
        ),
        {"queue": queue, "tokens": json.dumps(sorted({end.token for end in ended})), "now": now},
    )
    first = set(noted)
    ends: list[Finished] = []
    for end in ended:
        if end.token in first:
            first.discard(end.token)
            ends.append(end)
    return ends


def count_endings(connection: sa.Connection, queue: str, ends: Sequence[Finished]) -> None:
    """Count the ends that `first_ends` has let through: last in the transaction, as all workers count in these rows."""
    counted = Counter(end.ending.value for end in ends if end.ending is not None)
    if counted:
        connection.execute(
            sa.text(
                "INSERT INTO requests_endings (queue, ending, messages) VALUES (:queue, :ending, :messages) "
                "ON CONFLICT (queue, ending) DO UPDATE SET messages = requests_endings.messages + :messages"
            ),
            [{"queue": queue, "ending": ending, "messages": counted[ending]} for ending in sorted(counted)],
        )


class Remembered:
    """The memory of the queue `key`; threads may share it. Its methods raise DatabaseAway."""

    def __init__(self, database: RequestsDatabase, key: str) -> None:
        self._database = database
        self._key = key

    def look_up(self, names: Sequence[Named]) -> Known:
        """What is known of messages."""
        if not names:
            return Known(frozenset(), frozenset())
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

    def endings(self) -> Mapping[Ending, int]:
        """How many messages have ended so."""
        with self._database.read() as connection:
            rows = connection.execute(
                sa.text("SELECT ending, messages FROM requests_endings WHERE queue = :queue"),
                {"queue": self._key},
            ).all()
        counts = {row.ending: row.messages for row in rows}
        return {ending: counts.get(ending.value, 0) for ending in Ending}

    def cancel(self, message_id: str) -> None:
        """Keep that this id is cancelled."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            _forget(connection, self._key, "requests_cancelled", "id", now - CANCELLED_SECONDS)
            connection.execute(
                sa.text(
                    "INSERT INTO requests_cancelled (queue, id, at) VALUES (:queue, :id, :now) "
                    "ON CONFLICT (queue, id) DO UPDATE SET at = :now"
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


def _forget(connection: sa.Connection, queue: str, table: str, column: str, before: float) -> None:
    connection.execute(
        sa.text(
            f"DELETE FROM {table} WHERE queue = :queue AND {column} IN (SELECT {column} FROM {table} "
            "WHERE queue = :queue AND at < :before ORDER BY at LIMIT :most)"
        ),
        {"queue": queue, "before": before, "most": _MOST_FORGOTTEN},
    )
