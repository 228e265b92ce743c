"""Taking sealed windows over into a database of requests that does not know them: their files say all that it held."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from batch_assets.requests.bodies import OWN_COLUMNS
from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.store import ACCEPTED, add_to_total
from batch_assets.requests.tenants import set_shares
from batch_assets.sources.base import Fault
from batch_assets.sources.json_values import parse_object


@dataclass(frozen=True)
class SealedRequest:
    """Whose record a line of a window is, and when it came (unix seconds)."""

    id: str
    tenant: str
    arrived: float


def read_window(data: bytes) -> list[SealedRequest] | None:
    """The requests of a window's file, in their order; None where it is not what a window's file is."""
    found: list[SealedRequest] = []
    # At newlines alone: a carriage return is white space in JSON, and stays in its line.
    for line in data.split(b"\n")[:-1]:
        record = parse_object(line, len(line), frozenset())
        if isinstance(record, Fault):
            return None
        own = [record.get(name) for name in OWN_COLUMNS]
        if not all(isinstance(value, str) for value in own):
            return None
        job_id, tenant, arrived = map(str, own)
        try:
            found.append(SealedRequest(job_id, tenant, datetime.datetime.fromisoformat(arrived).timestamp()))
        except ValueError:
            return None
    return found if data.endswith(b"\n") else None


class KnownWindows:
    """Whether a database knows the windows of one pipeline."""

    def __init__(self, database: RequestsDatabase, pipeline: str) -> None:
        self._database = database
        self._pipeline = pipeline

    def is_recovered(self) -> bool:
        """Whether the database knows all windows of the pipeline."""
        self._database.prepare()
        query = sa.text("SELECT 1 FROM requests_totals WHERE pipeline = :pipeline AND what = 'recovered'")
        with self._database.read() as connection:
            return connection.scalar(query, {"pipeline": self._pipeline}) is not None

    def set_recovered(self) -> None:
        """The database knows all windows of the pipeline from now on."""
        with self._database.write() as connection:
            add_to_total(connection, self._pipeline, "recovered", 1)

    def adopt(self, name: str, size: int, lines: Sequence[SealedRequest]) -> bool:
        """Take over a sealed window that the database does not know, with its requests; False where it does."""
        with self._database.write() as connection:
            values = {"pipeline": self._pipeline, "name": name, "records": len(lines), "bytes": size}
            now = self._database.now(connection)
            made = connection.execute(
                sa.text(
                    "INSERT INTO requests_windows (pipeline, name, opened, records, bytes, sealed_at) "
                    "VALUES (:pipeline, :name, :opened, :records, :bytes, :now) ON CONFLICT DO NOTHING"
                ),
                values | {"opened": min((line.arrived for line in lines), default=now), "now": now},
            ).rowcount
            if made and lines:
                connection.execute(
                    sa.text(
                        "INSERT INTO requests_accepted (id, pipeline, tenant, arrived, size, window_name, line) "
                        "VALUES (:id, :pipeline, :tenant, :arrived, 0, :name, :line) ON CONFLICT DO NOTHING"
                    ),
                    [
                        {"pipeline": self._pipeline, "name": name, "line": number, **vars(line)}
                        for number, line in enumerate(lines)
                    ],
                )
                add_to_total(connection, self._pipeline, ACCEPTED, len(lines))
                set_shares(connection, self._pipeline, name)
        return bool(made)
