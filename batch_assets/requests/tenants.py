"""What each tenant has: requests of its own in a window, open ones, and those accepted today (UTC).

Who may have how many is `settings/requests.py`'s; who is refused, `server/open_requests.py`'s.
"""

import datetime
from collections import Counter
from collections.abc import Collection, Mapping

import sqlalchemy as sa

from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import UNFINISHED
from batch_assets.requests.database import RequestsDatabase

SHARDS_AT_ONCE = 1_000


def utc_day(seconds: float) -> str:
    """`2026-12-03`, of unix seconds."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()


def add_to_day(connection: sa.Connection, pipeline: str, day: str, requests: Mapping[str, int]) -> None:
    """Count requests by tenant, in the transaction that accepts them."""
    rows = [
        {"pipeline": pipeline, "tenant": tenant, "day": day, "requests": number}
        for tenant, number in sorted(requests.items())
        if number
    ]
    if rows:
        connection.execute(_ADD_TO_DAY, rows)


def set_shares(connection: sa.Connection, pipeline: str, window: str) -> None:
    """Note how many requests of a new window are whose, in the transaction that makes it."""
    connection.execute(_SET_SHARES, {"pipeline": pipeline, "window": window})


def accepted_today(database: RequestsDatabase, pipeline: str) -> Counter[str]:
    """By tenant, since midnight UTC."""
    database.prepare()
    with database.read() as connection:
        values = {"pipeline": pipeline, "day": utc_day(database.now(connection))}
        return Counter({row.tenant: row.requests for row in connection.execute(_TODAY, values)})


def open_by_tenant(database: RequestsDatabase, ledger: Ledger, pipeline: str) -> Counter[str]:
    """By tenant. A window that is in two shards counts as a whole until both have ended."""
    database.prepare()
    keys = [row.key for row in ledger.shards(pipeline, states=UNFINISHED)]
    with database.read() as connection:
        found = Counter(
            {row.tenant: row.requests for row in connection.execute(_WAITING, {"pipeline": pipeline})}
        )
        windows = set(connection.scalars(_UNPLANNED, {"pipeline": pipeline}))
        for start in range(0, len(keys), SHARDS_AT_ONCE):
            some = {"pipeline": pipeline, "shards": keys[start : start + SHARDS_AT_ONCE]}
            windows.update(connection.scalars(_UNDER_WAY, some))
        found.update(_of_windows(connection, pipeline, windows))
    return found


def _of_windows(connection: sa.Connection, pipeline: str, windows: Collection[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    names = sorted(windows)
    for start in range(0, len(names), SHARDS_AT_ONCE):
        some = {"pipeline": pipeline, "windows": names[start : start + SHARDS_AT_ONCE]}
        for row in connection.execute(_SHARES, some):
            found[row.tenant] += int(row.requests)
    return found


_ADD_TO_DAY = sa.text(
    "INSERT INTO requests_days (pipeline, tenant, day, requests) VALUES (:pipeline, :tenant, :day, :requests) "
    "ON CONFLICT (pipeline, tenant, day) DO UPDATE SET requests = requests_days.requests + excluded.requests"
)
_SET_SHARES = sa.text(
    # `line` has SQLite take the index by windows: it prefers the one by tenants, which is of all requests ever.
    "INSERT INTO requests_shares SELECT pipeline, window_name, tenant, count(*) FROM requests_accepted "
    "WHERE pipeline = :pipeline AND window_name = :window AND line >= 0 GROUP BY pipeline, window_name, tenant"
)
_TODAY = sa.text("SELECT tenant, requests FROM requests_days WHERE pipeline = :pipeline AND day = :day")
_WAITING = sa.text(
    "SELECT tenant, count(*) AS requests FROM requests_accepted "
    "WHERE pipeline = :pipeline AND window_name IS NULL AND cancelled_at IS NULL GROUP BY tenant"
)
_UNPLANNED = sa.text("SELECT name FROM requests_windows WHERE pipeline = :pipeline AND generation IS NULL")
_UNDER_WAY = sa.text(
    "SELECT DISTINCT window_name FROM requests_segments WHERE pipeline = :pipeline AND shard IN :shards"
).bindparams(sa.bindparam("shards", expanding=True))
_SHARES = sa.text(
    "SELECT tenant, sum(requests) AS requests FROM requests_shares "
    "WHERE pipeline = :pipeline AND window_name IN :windows GROUP BY tenant"
).bindparams(sa.bindparam("windows", expanding=True))
