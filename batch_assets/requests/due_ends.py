"""Of ends that somebody is to be told of: which are due, who sends them, and until when; of requests and of batches.

Whoever sends takes a due row for a while first, so that of several servers one sends; one that dies meanwhile leaves
it to the others, and the receiver may hear of it twice.
"""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import sqlalchemy as sa

from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.store import add_to_total
from batch_assets.retry_policy import WEBHOOK_CLAIM_SECONDS

TOLD, GIVEN_UP = "webhooks_told", "webhooks_given_up"
"""Totals of a pipeline."""
Ended = TypeVar("Ended")


@dataclass(frozen=True)
class DueEnd(Generic[Ended]):
    """The end of `ended` is to be told at `url`, to a `receiver` (host and port); `tries` were made before."""

    ended: Ended
    number: int
    id: str
    pipeline: str
    url: str
    receiver: str
    tries: int


class DueEnds(abc.ABC, Generic[Ended]):
    """The ends of one kind, of all pipelines in one database; threads may share it.

    `table` has the columns number, pipeline, url, receiver, due and tries, `ended_table` what ends, by the same number.
    """

    table: ClassVar[str]
    ended_table: ClassVar[str]
    ended_columns: ClassVar[str]

    def __init__(self, database: RequestsDatabase) -> None:
        self._database = database
        columns = ", ".join(f"{self.ended_table}.{name}" for name in self.ended_columns.split(", "))
        self._next_receiver = sa.text(
            f"SELECT receiver FROM {self.table} WHERE due IS NOT NULL AND due <= :now "
            "AND receiver > :after ORDER BY receiver LIMIT 1"
        )
        self._due = sa.text(
            f"SELECT {columns}, {self.ended_table}.id, {self.ended_table}.pipeline, url, receiver, due, tries "
            f"FROM {self.table} JOIN {self.ended_table} ON {self.ended_table}.number = {self.table}.number "
            "WHERE receiver = :receiver AND due IS NOT NULL AND due <= :now ORDER BY due LIMIT :most"
        )

    @abc.abstractmethod
    def made_of(self, row: Sequence[Any]) -> Ended:
        """What has ended, from a row of `ended_columns`."""

    def take(self, most: int, busy: Mapping[str, int], most_at_once: int) -> list[DueEnd[Ended]]:
        """What is due, at most `most`, for this caller alone to send; of each receiver the longest due first.

        `busy` says how many are being sent to a receiver already: with these, no receiver has more than
        `most_at_once`, so that one that does not answer keeps nobody else's waiting.
        """
        taken: list[DueEnd[Ended]] = []
        with self._database.read() as connection:
            now = self._database.now(connection)
            found: list[Any] = []
            after = ""
            while len(found) < most and (
                receiver := connection.scalar(self._next_receiver, {"after": after, "now": now})
            ):
                after = receiver
                room = min(most_at_once - busy.get(receiver, 0), most - len(found))
                if room > 0:
                    values = {"receiver": receiver, "now": now, "most": room}
                    found += connection.execute(self._due, values).all()
        if found:
            take = sa.text(f"UPDATE {self.table} SET due = :until WHERE number = :number AND due = :due")
            with self._database.write() as connection:
                until = self._database.now(connection) + WEBHOOK_CLAIM_SECONDS
                for row in found:
                    *ended, ended_id, pipeline, url, receiver, due, tries = row
                    if connection.execute(take, {"number": row.number, "due": due, "until": until}).rowcount:
                        made = self.made_of(ended)
                        taken.append(DueEnd(made, row.number, ended_id, pipeline, url, receiver, tries))
        return taken

    def note_told(self, end: DueEnd[Ended]) -> None:
        """Its receiver has heard of it."""
        self._remove(end, TOLD)

    def give_up(self, end: DueEnd[Ended]) -> None:
        """Its receiver is told no more."""
        self._remove(end, GIVEN_UP)

    def postpone(self, end: DueEnd[Ended], seconds: float) -> None:
        """It is sent again in so many seconds."""
        update = sa.text(f"UPDATE {self.table} SET due = :due, tries = :tries WHERE number = :number")
        with self._database.write() as connection:
            due = self._database.now(connection) + seconds
            connection.execute(update, {"number": end.number, "due": due, "tries": end.tries + 1})

    def _remove(self, end: DueEnd[Ended], how: str) -> None:
        delete = sa.text(f"DELETE FROM {self.table} WHERE number = :number")
        with self._database.write() as connection:
            if connection.execute(delete, {"number": end.number}).rowcount:
                add_to_total(connection, end.pipeline, how, 1)
