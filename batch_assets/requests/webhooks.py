"""Who is to be told of which request's end, and when: one row each until that is done or given up.

A row is due once its request has ended. Whoever sends takes it for a while first, so that of several servers one
sends; one that dies meanwhile leaves it to the others, and the receiver may hear of it twice.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.planned import Segment
from batch_assets.requests.store import REQUEST_COLUMNS, Request, add_to_total
from batch_assets.retry_policy import WEBHOOK_CLAIM_SECONDS

TOLD, GIVEN_UP = "webhooks_told", "webhooks_given_up"


@dataclass(frozen=True)
class DueWebhook:
    """An ended request whose end is to be told at `url`, to a `receiver` (host and port); `tries` were made before."""

    request: Request
    url: str
    receiver: str
    tries: int


class Webhooks:
    """The webhooks of all pipelines in one database; threads may share it."""

    def __init__(self, database: RequestsDatabase) -> None:
        self._database = database

    def open_windows(self, pipeline: str, after: str, most: int) -> list[str]:
        """Windows behind `after` that hold requests whose end is to be told and has not been seen."""
        found: list[str] = []
        with self._database.read() as connection:
            # A step along the index each: a window has very many rows.
            while len(found) < most and (
                window := connection.scalar(_NEXT_WINDOW, {"pipeline": pipeline, "after": after})
            ):
                found.append(window)
                after = window
        return found

    def note_ended(self, pipeline: str, segments: Collection[Segment]) -> None:
        """The requests in these rows of windows have ended: their ends are due to be told."""
        if not segments:
            return
        with self._database.write() as connection:
            now = self._database.now(connection)
            connection.execute(
                _NOTE_ENDED,
                [
                    {
                        "pipeline": pipeline,
                        "window": one.window,
                        "first": one.first_row,
                        "last": one.last_row,
                        "now": now,
                    }
                    for one in segments
                ],
            )

    def take(self, most: int, busy: Mapping[str, int], most_at_once: int) -> list[DueWebhook]:
        """What is due, at most `most`, for this caller alone to send; of each receiver the longest due first.

        `busy` says how many are being sent to a receiver already: with these, no receiver has more than
        `most_at_once`, so that one that does not answer keeps nobody else's waiting.
        """
        taken: list[DueWebhook] = []
        with self._database.read() as connection:
            now = self._database.now(connection)
            found: list[Any] = []
            after = ""
            while len(found) < most and (
                receiver := connection.scalar(_NEXT_RECEIVER, {"after": after, "now": now})
            ):
                after = receiver
                room = min(most_at_once - busy.get(receiver, 0), most - len(found))
                if room > 0:
                    found += connection.execute(_DUE, {"receiver": receiver, "now": now, "most": room}).all()
        if found:
            with self._database.write() as connection:
                until = self._database.now(connection) + WEBHOOK_CLAIM_SECONDS
                for row in found:
                    *request, url, receiver, due, tries = row
                    if connection.execute(_TAKE, {"number": row.number, "due": due, "until": until}).rowcount:
                        taken.append(DueWebhook(Request(*request), url, receiver, tries))
        return taken

    def note_told(self, webhook: DueWebhook) -> None:
        """Its receiver has heard of it."""
        self._end(webhook, TOLD)

    def give_up(self, webhook: DueWebhook) -> None:
        """Its receiver is told no more."""
        self._end(webhook, GIVEN_UP)

    def postpone(self, webhook: DueWebhook, seconds: float) -> None:
        """It is sent again in so many seconds."""
        update = sa.text("UPDATE requests_webhooks SET due = :due, tries = :tries WHERE number = :number")
        with self._database.write() as connection:
            due = self._database.now(connection) + seconds
            values = {"number": webhook.request.number, "due": due, "tries": webhook.tries + 1}
            connection.execute(update, values)

    def _end(self, webhook: DueWebhook, how: str) -> None:
        delete = sa.text("DELETE FROM requests_webhooks WHERE number = :number")
        with self._database.write() as connection:
            if connection.execute(delete, {"number": webhook.request.number}).rowcount:
                add_to_total(connection, webhook.request.pipeline, how, 1)


_NEXT_WINDOW = sa.text(
    "SELECT window_name FROM requests_webhooks WHERE pipeline = :pipeline AND due IS NULL "
    "AND window_name > :after ORDER BY window_name LIMIT 1"
)
_NOTE_ENDED = sa.text(
    "UPDATE requests_webhooks SET due = :now WHERE pipeline = :pipeline AND window_name = :window "
    "AND due IS NULL AND number IN (SELECT number FROM requests_accepted "
    "WHERE pipeline = :pipeline AND window_name = :window AND line >= :first AND line < :last)"
)
_NEXT_RECEIVER = sa.text(
    "SELECT receiver FROM requests_webhooks WHERE due IS NOT NULL AND due <= :now "
    "AND receiver > :after ORDER BY receiver LIMIT 1"
)
_REQUEST = ", ".join(f"requests_accepted.{name}" for name in REQUEST_COLUMNS.split(", "))
_DUE = sa.text(
    f"SELECT {_REQUEST}, url, receiver, due, tries FROM requests_webhooks "
    "JOIN requests_accepted ON requests_accepted.number = requests_webhooks.number "
    "WHERE receiver = :receiver AND due IS NOT NULL AND due <= :now ORDER BY due LIMIT :most"
)
_TAKE = sa.text("UPDATE requests_webhooks SET due = :until WHERE number = :number AND due = :due")
