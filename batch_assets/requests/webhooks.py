"""Who is to be told of which request's end, and when: one row each until that is done or given up.

A row is due once its request has ended. Whoever sends takes it for a while first, so that of several servers one
sends; one that dies meanwhile leaves it to the others, and the receiver may hear of it twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.store import REQUEST_COLUMNS, Request, add_to_total
from batch_assets.retry_policy import WEBHOOK_CLAIM_SECONDS

TOLD, GIVEN_UP = "webhooks_told", "webhooks_given_up"


@dataclass(frozen=True)
class DueWebhook:
    """An ended request whose end is to be told at `url`; `tries` were made before."""

    request: Request
    url: str
    tries: int


class Webhooks:
    """The webhooks of all pipelines in one database; threads may share it."""

    def __init__(self, database: RequestsDatabase) -> None:
        self._database = database

    def open_windows(self, pipeline: str, after: str, most: int) -> list[str]:
        """Windows behind `after` that hold requests whose end is to be told and has not been seen."""
        query = sa.text(
            "SELECT DISTINCT window_name FROM requests_webhooks WHERE pipeline = :pipeline AND due IS NULL "
            "AND window_name > :after ORDER BY window_name LIMIT :most"
        )
        with self._database.read() as connection:
            return list(connection.scalars(query, {"pipeline": pipeline, "after": after, "most": most}))

    def open_requests(self, pipeline: str, window: str) -> list[Request]:
        """Those requests of such a window, in their order."""
        columns = ", ".join(f"requests_accepted.{name}" for name in REQUEST_COLUMNS.split(", "))
        query = sa.text(
            f"SELECT {columns} FROM requests_webhooks "
            "JOIN requests_accepted ON requests_accepted.number = requests_webhooks.number "
            "WHERE requests_webhooks.pipeline = :pipeline AND requests_webhooks.window_name = :window "
            "AND due IS NULL ORDER BY line"
        )
        with self._database.read() as connection:
            return [
                Request(*row) for row in connection.execute(query, {"pipeline": pipeline, "window": window})
            ]

    def note_ended(self, requests: Sequence[Request]) -> None:
        """These have ended: their ends are due to be told."""
        if not requests:
            return
        update = sa.text("UPDATE requests_webhooks SET due = :now WHERE number = :number AND due IS NULL")
        with self._database.write() as connection:
            now = self._database.now(connection)
            connection.execute(update, [{"number": one.number, "now": now} for one in requests])

    def take(self, most: int) -> list[DueWebhook]:
        """What is due, at most so many, for this caller alone to send; the longest due first."""
        columns = ", ".join(f"requests_accepted.{name}" for name in REQUEST_COLUMNS.split(", "))
        query = sa.text(
            f"SELECT {columns}, url, due, tries FROM requests_webhooks "
            "JOIN requests_accepted ON requests_accepted.number = requests_webhooks.number "
            "WHERE due IS NOT NULL AND due <= :now ORDER BY due LIMIT :most"
        )
        with self._database.read() as connection:
            now = self._database.now(connection)
            found = connection.execute(query, {"now": now, "most": most}).all()
        taken: list[DueWebhook] = []
        if found:
            with self._database.write() as connection:
                until = self._database.now(connection) + WEBHOOK_CLAIM_SECONDS
                for row in found:
                    *request, url, due, tries = row
                    if connection.execute(_TAKE, {"number": row.number, "due": due, "until": until}).rowcount:
                        taken.append(DueWebhook(Request(*request), url, tries))
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


_TAKE = sa.text("UPDATE requests_webhooks SET due = :until WHERE number = :number AND due = :due")
