"""Who is to be told of which request's end: one row each, which is due once the request has ended."""

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from batch_assets.requests.due_ends import DueEnds
from batch_assets.requests.planned import Segment
from batch_assets.requests.store import REQUEST_COLUMNS, Request


class Webhooks(DueEnds[Request]):
    """The webhooks of requests."""

    table, ended_table, ended_columns = "requests_webhooks", "requests_accepted", REQUEST_COLUMNS

    def made_of(self, row: Sequence[Any]) -> Request:
        """The request of a row."""
        return Request(*row)

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


_NEXT_WINDOW = sa.text(
    "SELECT window_name FROM requests_webhooks WHERE pipeline = :pipeline AND due IS NULL "
    "AND window_name > :after ORDER BY window_name LIMIT 1"
)
_NOTE_ENDED = sa.text(
    "UPDATE requests_webhooks SET due = :now WHERE pipeline = :pipeline AND window_name = :window "
    "AND due IS NULL AND number IN (SELECT number FROM requests_accepted "
    "WHERE pipeline = :pipeline AND window_name = :window AND line >= :first AND line < :last)"
)
