"""Accepted requests in the database: taken in groups, found by their id, cancelled, listed, counted.

How they are sealed into windows is in `windows.py`; what became of a sealed one, in `results.py`.
"""

import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import sqlalchemy as sa

from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.tenants import add_to_day, utc_day

ACCEPTED, CANCELLED, EXPIRED = "accepted", "cancelled", "expired"
REMOVED_COMPLETED, REMOVED_FAILED = "removed_completed", "removed_failed"
"""What was counted as ended by shards that are not kept any longer."""
REQUEST_COLUMNS = "number, id, pipeline, tenant, arrived, cancelled_at, window_name, line, expired"


@dataclass(frozen=True, slots=True)
class NewRequest:
    """A request that is to be accepted. `body` is one line of JSON, `digest` that of what the client sent.

    `webhook` is the URL that is to hear of its end.
    """

    id: str
    pipeline: str
    tenant: str
    body: bytes
    digest: bytes
    key: str | None = None
    webhook: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """How a request was taken: under which id. `same_key`: it was known, and had the same body or another one."""

    id: str
    is_new: bool = True
    same_body: bool = True


@dataclass(frozen=True, slots=True)
class Request:
    """An accepted request. `window` and `line` (0-based) say where its record is once it is sealed.

    `expired`: it was not cancelled by anybody, its time was up.
    """

    number: int
    id: str
    pipeline: str
    tenant: str
    arrived: float
    cancelled_at: float | None
    window: str | None
    line: int | None
    expired: int = 0


def new_id() -> str:
    """An id that nobody can guess, and that grows with time: a UUID of version 7 (RFC 9562)."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    value = value & ~(0xF000 << 64) | 0x7000 << 64
    value = value & ~(0xC000 << 48) | 0x8000 << 48
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class RequestStore:
    """The requests of all pipelines in one database."""

    def __init__(self, database: RequestsDatabase) -> None:
        self.database = database

    def accept(self, requests: Sequence[NewRequest]) -> list[Accepted]:
        """Make requests durable, all in one transaction. One whose key is known already makes nothing."""
        self.database.prepare()
        with self.database.write() as connection:
            now = self.database.now(connection)
            keyless = [_row(one, now) for one in requests if one.key is None]
            keyed = [_row(one, now) for one in requests if one.key is not None]
            _insert(connection, keyless)
            known = _insert_keyed(connection, keyed) if keyed else {}
            if hooked := [_webhook(one.id, one.webhook) for one in requests if one.webhook is not None]:
                connection.execute(_INSERT_WEBHOOK, hooked)
            made = [_accepted(one, known) for one in requests]
            counts: dict[str, Counter[str]] = {}
            for one, how in zip(requests, made, strict=True):
                counts.setdefault(one.pipeline, Counter())[one.tenant] += how.is_new
            for pipeline in sorted(counts):
                add_to_total(connection, pipeline, ACCEPTED, counts[pipeline].total())
                add_to_day(connection, pipeline, utc_day(now), counts[pipeline])
            return made

    def all_known(self, requests: Sequence[NewRequest]) -> bool:
        """Whether accepting them would make nothing new: each has a key that is known."""
        if any(one.key is None for one in requests):
            return False
        keys = [(one.pipeline, one.tenant, str(one.key)) for one in requests]
        with self.database.read() as connection:
            return set(keys) == set(_known(connection, keys))

    def find(self, request_id: str) -> Request | None:
        """The request with this id; None where there is none."""
        self.database.prepare()
        query = sa.text(f"SELECT {REQUEST_COLUMNS} FROM requests_accepted WHERE id = :id")
        with self.database.read() as connection:
            row = connection.execute(query, {"id": request_id}).one_or_none()
        return None if row is None else Request(*row)

    def cancel(self, request: Request) -> bool:
        """Cancel it, unless it is sealed; whether it is cancelled now."""
        with self.database.write() as connection:
            cancelled = connection.execute(
                sa.text(
                    "UPDATE requests_accepted SET cancelled_at = :now, body = NULL "
                    "WHERE number = :number AND window_name IS NULL AND cancelled_at IS NULL"
                ),
                {"number": request.number, "now": self.database.now(connection)},
            ).rowcount
            if cancelled:
                connection.execute(
                    sa.text("UPDATE requests_webhooks SET due = :now WHERE number = :number AND due IS NULL"),
                    {"number": request.number, "now": self.database.now(connection)},
                )
                add_to_total(connection, request.pipeline, CANCELLED, 1)
                return True
            found = connection.scalar(
                sa.text("SELECT cancelled_at FROM requests_accepted WHERE number = :number"),
                {"number": request.number},
            )
        return found is not None

    def newest(self, pipeline: str, tenant: str | None, before: int | None, most: int) -> list[Request]:
        """Requests, newest first: of one tenant or of all, those taken before the one with the number `before`."""
        self.database.prepare()
        where = "" if tenant is None else " AND tenant = :tenant"
        where += "" if before is None else " AND number < :before"
        query = sa.text(
            f"SELECT {REQUEST_COLUMNS} FROM requests_accepted WHERE pipeline = :pipeline{where} "
            "ORDER BY number DESC LIMIT :most"
        )
        values = {"pipeline": pipeline, "tenant": tenant, "before": before, "most": most}
        with self.database.read() as connection:
            return [Request(*row) for row in connection.execute(query, values)]

    def in_window(self, pipeline: str, window: str, tenant: str | None) -> list[Request]:
        """The requests of a sealed window in their order: of one tenant or of all."""
        self.database.prepare()
        where = "" if tenant is None else " AND tenant = :tenant"
        query = sa.text(
            f"SELECT {REQUEST_COLUMNS} FROM requests_accepted "
            f"WHERE pipeline = :pipeline AND window_name = :window{where} ORDER BY line"
        )
        values = {"pipeline": pipeline, "window": window, "tenant": tenant}
        with self.database.read() as connection:
            return [Request(*row) for row in connection.execute(query, values)]

    def totals(self, pipeline: str) -> dict[str, int]:
        """How many requests were accepted in all, and how many of them ended without a shard."""
        self.database.prepare()
        query = sa.text("SELECT what, requests FROM requests_totals WHERE pipeline = :pipeline")
        with self.database.read() as connection:
            found = {row.what: row.requests for row in connection.execute(query, {"pipeline": pipeline})}
        return dict.fromkeys((ACCEPTED, CANCELLED, EXPIRED, REMOVED_COMPLETED, REMOVED_FAILED), 0) | found


def add_to_total(connection: sa.Connection, pipeline: str, what: str, requests: int) -> None:
    """Count requests, in the transaction that makes them so."""
    if requests:
        connection.execute(
            sa.text(
                "INSERT INTO requests_totals (pipeline, what, requests) VALUES (:pipeline, :what, :requests) "
                "ON CONFLICT (pipeline, what) DO UPDATE SET requests = requests_totals.requests + excluded.requests"
            ),
            {"pipeline": pipeline, "what": what, "requests": requests},
        )


_FIELDS = "id, pipeline, tenant, key, digest, arrived, size, body"
_WITHOUT_THOSE_KNOWN = " ON CONFLICT (pipeline, tenant, key) WHERE key IS NOT NULL DO NOTHING"
_Row = tuple[str, str, str, str | None, bytes, float, int, bytes]
_ROWS_AT_ONCE = 500
"""One statement inserts so many: with one for each row SQLite's driver lets go of Python's lock for each, and waits
milliseconds to get it back from a busy event loop. Both databases take several times as many parameters."""


# None is found under the id of a request whose key was known.
_INSERT_WEBHOOK = sa.text(
    "INSERT INTO requests_webhooks (number, pipeline, url, receiver) "
    "SELECT number, pipeline, :url, :receiver FROM requests_accepted WHERE id = :id"
)


def _webhook(request_id: str, url: str) -> dict[str, str]:
    return {"id": request_id, "url": url, "receiver": urlsplit(url).netloc}


def _row(one: NewRequest, now: float) -> _Row:
    return (one.id, one.pipeline, one.tenant, one.key, one.digest, now, len(one.body), one.body)


def _insert(connection: sa.Connection, rows: Sequence[_Row], otherwise: str = "") -> None:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[start : start + _ROWS_AT_ONCE]
        values = _placeholders(connection, len(some), len(some[0]))
        statement = f"INSERT INTO requests_accepted ({_FIELDS}) VALUES {values}{otherwise}"
        connection.exec_driver_sql(statement, tuple(value for row in some for value in row))


def _insert_keyed(
    connection: sa.Connection, rows: Sequence[_Row]
) -> dict[tuple[str, str, str], tuple[str, bytes]]:
    """Insert those whose key is new; the id and digest that each key has now."""
    # In one order, so that two servers with the same keys at hand do not wait for each other.
    keys = sorted({(row[1], row[2], str(row[3])) for row in rows})
    by_key = {(row[1], row[2], str(row[3])): row for row in reversed(rows)}
    _insert(connection, [by_key[key] for key in keys], _WITHOUT_THOSE_KNOWN)
    return _known(connection, keys)


def _known(
    connection: sa.Connection, keys: Sequence[tuple[str, str, str]]
) -> dict[tuple[str, str, str], tuple[str, bytes]]:
    """The id and digest of each (pipeline, tenant, key) that is there."""
    known: dict[tuple[str, str, str], tuple[str, bytes]] = {}
    for start in range(0, len(keys), _ROWS_AT_ONCE):
        some = keys[start : start + _ROWS_AT_ONCE]
        # Joined, and in this order: `IN` would have SQLite read the whole index.
        query = (
            f"WITH wanted (pipeline, tenant, key) AS (VALUES {_placeholders(connection, len(some), 3)}) "
            "SELECT found.pipeline, found.tenant, found.key, found.id, found.digest "
            "FROM wanted CROSS JOIN requests_accepted AS found WHERE found.key IS NOT NULL "
            "AND found.pipeline = wanted.pipeline AND found.tenant = wanted.tenant AND found.key = wanted.key"
        )
        for row in connection.exec_driver_sql(query, tuple(part for key in some for part in key)):
            known[row.pipeline, row.tenant, row.key] = (row.id, bytes(row.digest))
    return known


def _placeholders(connection: sa.Connection, rows: int, columns: int) -> str:
    """`(?, ?), (?, ?)`, as the driver writes them."""
    mark = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    row = f"({', '.join([mark] * columns)})"
    return ", ".join([row] * rows)


def _accepted(one: NewRequest, known: dict[tuple[str, str, str], tuple[str, bytes]]) -> Accepted:
    if one.key is None:
        return Accepted(one.id)
    found, digest = known[one.pipeline, one.tenant, one.key]
    return Accepted(found, is_new=found == one.id, same_body=digest == one.digest)
