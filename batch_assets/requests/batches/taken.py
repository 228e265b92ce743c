"""The lines of a batch that are taken, as the database has them: which are requests, and in which shards these are."""

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from batch_assets.requests.batches.store import Batch
from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.store import REQUEST_COLUMNS, Request

LINES_AT_ONCE = 4_096


@dataclass(frozen=True, slots=True)
class TakenLine:
    """A line with its request, or with the code and the message of what was wrong with it."""

    number: int
    custom_id: str | None
    is_base64: bool
    code: str | None
    message: str | None
    request: Request | None


@dataclass(frozen=True, slots=True)
class LineCounts:
    """How many lines are no requests, how many are, and how many of these ended in no shard."""

    rejected: int
    requests: int
    cancelled: int


class TakenLines:
    """The lines of one batch."""

    def __init__(self, database: RequestsDatabase, batch: Batch) -> None:
        self._database = database
        self._batch = batch.number

    def counts(self) -> LineCounts:
        """Of those taken so far."""
        with self._database.read() as connection:
            row = connection.execute(_COUNTS, {"batch": self._batch}).one()
        return LineCounts(int(row.rejected or 0), int(row.requests or 0), int(row.cancelled or 0))

    def by_shard(self) -> dict[str, int]:
        """How many of its requests are in each shard, of those that are planned."""
        with self._database.read() as connection:
            return {row.shard: row.requests for row in connection.execute(_BY_SHARD, {"batch": self._batch})}

    def pages(self) -> Iterator[list[TakenLine]]:
        """All of them in their order, a bounded number at a time."""
        after = -1
        while True:
            values = {"batch": self._batch, "after": after, "most": LINES_AT_ONCE}
            with self._database.read() as connection:
                rows = [tuple(row) for row in connection.execute(_LINES, values)]
            if not rows:
                return
            yield [
                TakenLine(number, custom_id, bool(is_base64), code, message, _request(request))
                for number, custom_id, is_base64, code, message, *request in rows
            ]
            after = rows[-1][0]


def _request(columns: list[object]) -> Request | None:
    return None if columns[0] is None else Request(*columns)  # type: ignore[arg-type]


_COUNTS = sa.text(
    "SELECT sum(CASE WHEN request IS NULL THEN 1 ELSE 0 END) AS rejected, count(request) AS requests, "
    "sum(CASE WHEN cancelled_at IS NOT NULL THEN 1 ELSE 0 END) AS cancelled "
    "FROM requests_batch_lines LEFT JOIN requests_accepted ON id = request WHERE requests_batch_lines.batch = :batch"
)
_BY_SHARD = sa.text(
    "SELECT shard, count(*) AS requests FROM requests_batch_lines "
    "JOIN requests_accepted ON requests_accepted.id = request "
    "JOIN requests_segments ON requests_segments.pipeline = requests_accepted.pipeline "
    "AND requests_segments.window_name = requests_accepted.window_name "
    "AND requests_accepted.line >= first_row AND requests_accepted.line < last_row "
    "WHERE requests_batch_lines.batch = :batch GROUP BY shard"
)
_REQUEST = ", ".join(f"requests_accepted.{name}" for name in REQUEST_COLUMNS.split(", "))
_LINES = sa.text(
    f"SELECT lines.line, custom_id, is_base64, code, message, {_REQUEST} FROM requests_batch_lines AS lines "
    "LEFT JOIN requests_accepted ON requests_accepted.id = request "
    "WHERE lines.batch = :batch AND lines.line > :after ORDER BY lines.line LIMIT :most"
)
