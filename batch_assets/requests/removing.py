"""Requests that are not kept any longer leave the database: those of a generation together, and cancelled ones.

When their time is up, and what becomes of files, is `control/request_removal.py`'s.
"""

import sqlalchemy as sa

from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.store import REMOVED_COMPLETED, REMOVED_FAILED, add_to_total
from batch_assets.requests.tenants import utc_day

MOST_AT_ONCE = 2_000
"""Requests that leave in one transaction."""


class Removals:
    """What is being removed of one pipeline's requests."""

    def __init__(self, database: RequestsDatabase, pipeline: str) -> None:
        self._database = database
        self._pipeline = pipeline

    def begun(self) -> list[int]:
        """Generations whose removal was begun and has not ended."""
        self._database.prepare()
        query = sa.text(
            "SELECT generation FROM requests_removals WHERE pipeline = :pipeline ORDER BY generation"
        )
        with self._database.read() as connection:
            return list(connection.scalars(query, {"pipeline": self._pipeline}))

    def begin(self, generation: int, completed: int, failed: int) -> None:
        """A generation is to be removed; so many of its requests stay counted, however often this is called.

        A database that has none of its windows has not counted its requests as accepted, and does not count their end.
        """
        values = {"pipeline": self._pipeline, "generation": generation}
        with self._database.write() as connection:
            if connection.execute(_BEGIN, values).rowcount and connection.scalar(_WINDOW_NAMES, values):
                add_to_total(connection, self._pipeline, REMOVED_COMPLETED, completed)
                add_to_total(connection, self._pipeline, REMOVED_FAILED, failed)

    def remove_requests(self, window: str) -> None:
        """Remove the requests of a window, some at a time, so that nobody who writes waits long."""
        values = {"pipeline": self._pipeline, "window": window, "most": MOST_AT_ONCE}
        while True:
            with self._database.write() as connection:
                numbers = list(connection.scalars(_IN_WINDOW, values))
                _remove(connection, numbers)
            if len(numbers) < MOST_AT_ONCE:
                return

    def windows(self, generation: int) -> list[str]:
        """The windows of a generation, by name."""
        values = {"pipeline": self._pipeline, "generation": generation}
        with self._database.read() as connection:
            return sorted(connection.scalars(_WINDOW_NAMES, values))

    def end(self, generation: int) -> None:
        """Its files are gone, and so is what led to them."""
        values = {"pipeline": self._pipeline, "generation": generation}
        with self._database.write() as connection:
            for window in list(connection.scalars(_WINDOW_NAMES, values)):
                for table in ("requests_segments", "requests_shares"):
                    connection.execute(
                        sa.text(f"DELETE FROM {table} WHERE pipeline = :pipeline AND window_name = :window"),
                        {"pipeline": self._pipeline, "window": window},
                    )
            for table in ("requests_windows", "requests_removals"):
                connection.execute(
                    sa.text(f"DELETE FROM {table} WHERE pipeline = :pipeline AND generation = :generation"),
                    values,
                )

    def remove_cancelled(self, before: float) -> int:
        """Remove requests that were cancelled before a time (unix seconds), and days long past; how many requests."""
        self._database.prepare()
        values = {"pipeline": self._pipeline, "before": before, "day": utc_day(before), "most": MOST_AT_ONCE}
        with self._database.write() as connection:
            connection.execute(
                sa.text("DELETE FROM requests_days WHERE pipeline = :pipeline AND day < :day"), values
            )
            numbers = list(connection.scalars(_CANCELLED, values))
            _remove(connection, numbers)
        return len(numbers)


def _remove(connection: sa.Connection, numbers: list[int]) -> None:
    if numbers:
        for table in ("requests_webhooks", "requests_accepted"):
            delete = sa.text(f"DELETE FROM {table} WHERE number = :number")
            connection.execute(delete, [{"number": number} for number in numbers])


_BEGIN = sa.text(
    "INSERT INTO requests_removals (pipeline, generation) VALUES (:pipeline, :generation) ON CONFLICT DO NOTHING"
)
_WINDOW_NAMES = sa.text(
    "SELECT name FROM requests_windows WHERE pipeline = :pipeline AND generation = :generation"
)
_IN_WINDOW = sa.text(
    "SELECT number FROM requests_accepted WHERE pipeline = :pipeline AND window_name = :window LIMIT :most"
)
_CANCELLED = sa.text(
    "SELECT number FROM requests_accepted WHERE pipeline = :pipeline AND cancelled_at < :before "
    "AND cancelled_at IS NOT NULL LIMIT :most"
)
