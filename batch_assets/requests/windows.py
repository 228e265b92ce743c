"""Batch windows: waiting requests sealed together into one immutable file, by number, bytes or time.

Which requests a window has is settled in the database, in one transaction, before its file is written: the file can
be written again from there, byte for byte, until the database knows that it is whole. What arrives meanwhile goes
into the next window, whatever its clock said. Whoever seals holds the pipeline's lease; two at once do no harm.
"""

import datetime
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from batch_assets import paths
from batch_assets.crash_points import crash_point
from batch_assets.errors import StorageError
from batch_assets.requests.bodies import OWN_BYTES, window_line
from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.tenants import set_shares
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.storage import Storage

MOST_WINDOW_BYTES = 64 * 2**20
"""A window's file is made in memory."""
_WAITING = "pipeline = :pipeline AND window_name IS NULL AND cancelled_at IS NULL"


@dataclass(frozen=True)
class Waiting:
    """Requests that are in no window yet: how many, up to the number asked for, and since when the first one waits."""

    requests: int
    since: float | None


class Windows:
    """The windows of one pipeline. `storage` is its output root."""

    def __init__(self, database: RequestsDatabase, settings: PipelineSettings, storage: Storage) -> None:
        assert settings.source.requests is not None, settings.name
        self.database = database
        self._pipeline = settings.name
        self._rules = settings.source.requests
        self._most_bytes = min(settings.shards.bytes, MOST_WINDOW_BYTES)
        self._storage = storage

    def waiting(self, most: int) -> Waiting:
        """What waits to be sealed, counted up to `most`."""
        self.database.prepare()
        with self.database.read() as connection:
            return self._waiting(connection, most)

    def seconds_until_due(self) -> float | None:
        """In how many seconds a window is to be sealed, 0 where one is; None where nothing waits."""
        self.database.prepare()
        with self.database.read() as connection:
            waiting = self._waiting(connection, self._rules.seal_records)
            if waiting.since is None:
                return None
            if waiting.requests >= self._rules.seal_records:
                return 0.0
            return max(waiting.since + self._rules.seal_seconds - self.database.now(connection), 0.0)

    def is_due(self) -> bool:
        """Whether a window is to be sealed, or was left half sealed."""
        return self.seconds_until_due() == 0 or bool(self._unfinished())

    def seal(self, *, everything: bool = False) -> list[str]:
        """Seal what is due, or everything that waits; the names of the windows. Those left half sealed come first."""
        self.database.prepare()
        sealed = [self._finish(name) for name in self._unfinished()]
        while (due := self.seconds_until_due()) is not None and (everything or due <= 0):
            name = self._choose()
            if name is None:
                break
            sealed.append(self._finish(name))
        return sealed

    def _waiting(self, connection: sa.Connection, most: int) -> Waiting:
        values = {"pipeline": self._pipeline, "most": most}
        count = sa.text(
            f"SELECT count(*) FROM (SELECT 1 FROM requests_accepted WHERE {_WAITING} LIMIT :most) AS counted"
        )
        first = sa.text(
            f"SELECT arrived FROM requests_accepted WHERE {_WAITING} AND tenant = :tenant ORDER BY number LIMIT 1"
        )
        firsts = [
            connection.scalar(first, {**values, "tenant": tenant}) for tenant in self._tenants(connection)
        ]
        since = min((arrived for arrived in firsts if arrived is not None), default=None)
        return Waiting(connection.scalar(count, values) or 0, since)

    def _tenants(self, connection: sa.Connection) -> Iterator[str]:
        """Who has anything waiting, found by a step along the index each."""
        query = sa.text(
            f"SELECT tenant FROM requests_accepted WHERE {_WAITING} AND tenant > :after ORDER BY tenant LIMIT 1"
        )
        after = ""
        while found := connection.scalar(query, {"pipeline": self._pipeline, "after": after}):
            yield found
            after = found

    def _choose(self) -> str | None:
        """Settle which requests the next window has: tenants take turns, each in the order in which they came."""
        with self.database.write() as connection:
            chosen = self._by_turns(connection)
            if not chosen:
                return None
            opened = min(arrived for _, arrived, _ in chosen)
            minute = datetime.datetime.fromtimestamp(opened, datetime.UTC)
            name = paths.window_name(minute, secrets.token_hex(6))
            connection.execute(
                sa.text(
                    "INSERT INTO requests_windows (pipeline, name, opened, records) "
                    "VALUES (:pipeline, :name, :opened, :records)"
                ),
                {"pipeline": self._pipeline, "name": name, "opened": opened, "records": len(chosen)},
            )
            connection.execute(
                sa.text(
                    "UPDATE requests_accepted SET window_name = :name, line = :line WHERE number = :number"
                ),
                [
                    {"name": name, "line": line, "number": number}
                    for line, (number, _, _) in enumerate(sorted(chosen))
                ],
            )
            connection.execute(
                sa.text(
                    "UPDATE requests_webhooks SET window_name = :name WHERE number IN (SELECT number "
                    "FROM requests_accepted WHERE pipeline = :pipeline AND window_name = :name)"
                ),
                {"pipeline": self._pipeline, "name": name},
            )
            set_shares(connection, self._pipeline, name)
        crash_point("window-chosen")
        return name

    def _by_turns(self, connection: sa.Connection) -> list[tuple[int, float, int]]:
        """The (number, arrival, size) of what fits into a window."""
        query = sa.text(
            f"SELECT number, arrived, size FROM requests_accepted WHERE {_WAITING} AND tenant = :tenant "
            f"ORDER BY number LIMIT :most{self.database.skip_locked}"
        )
        queues = [
            iter(
                connection.execute(
                    query, {"pipeline": self._pipeline, "tenant": tenant, "most": self._rules.seal_records}
                ).all()
            )
            for tenant in list(self._tenants(connection))
        ]
        chosen: list[tuple[int, float, int]] = []
        size = 0
        while queues:
            for queue in list(queues):
                row = next(queue, None)
                if row is None:
                    queues.remove(queue)
                    continue
                size += row.size + OWN_BYTES
                if chosen and (size > self._most_bytes or len(chosen) >= self._rules.seal_records):
                    return chosen
                chosen.append((row.number, row.arrived, row.size))
        return chosen

    def _unfinished(self) -> list[str]:
        """Windows whose file nobody has said to be whole."""
        query = sa.text(
            "SELECT name FROM requests_windows "
            "WHERE pipeline = :pipeline AND generation IS NULL AND sealed_at IS NULL ORDER BY opened, name"
        )
        with self.database.read() as connection:
            return list(connection.scalars(query, {"pipeline": self._pipeline}))

    def _finish(self, name: str) -> str:
        """Write the window's file, then let the bodies go."""
        lines = self._lines(name)
        if lines is None:
            return name  # by somebody else, a moment ago
        data = b"".join(lines)
        path = f"{paths.WINDOWS}/{paths.window_file(name)}"
        if not self._storage.create(path, data) and self._storage.read(path) != data:
            raise StorageError(
                f"{self._storage.uri}/{path}: is there, and is not what the database has of window {name}; move it "
                "away, and it is written anew"
            )
        crash_point("window-written")
        with self.database.write() as connection:
            values = {"pipeline": self._pipeline, "name": name, "now": self.database.now(connection)}
            connection.execute(
                sa.text(
                    "UPDATE requests_windows SET sealed_at = :now, bytes = :bytes "
                    "WHERE pipeline = :pipeline AND name = :name AND sealed_at IS NULL"
                ),
                values | {"bytes": len(data)},
            )
            connection.execute(
                sa.text(
                    "UPDATE requests_accepted SET body = NULL WHERE pipeline = :pipeline AND window_name = :name"
                ),
                values,
            )
        return name

    def _lines(self, name: str) -> list[bytes] | None:
        """What the window's file is made of; None where the bodies have left the database, so that it is there."""
        query = sa.text(
            "SELECT id, tenant, arrived, body FROM requests_accepted "
            "WHERE pipeline = :pipeline AND window_name = :name ORDER BY line"
        )
        with self.database.read() as connection:
            rows = connection.execute(query, {"pipeline": self._pipeline, "name": name}).all()
        if any(row.body is None for row in rows):
            return None
        return [window_line(bytes(row.body), row.id, row.tenant, utc(row.arrived)) for row in rows]


def utc(seconds: float) -> str:
    """ISO 8601 with microseconds, UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="microseconds")
