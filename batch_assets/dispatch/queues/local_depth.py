"""How much there is in an embedded queue. What moves its messages is in `local.py`."""

import sqlalchemy as sa

from batch_assets.dispatch.queues.base import NO_DEADLINE, Depth

_WAITING = "FROM requests_messages WHERE queue = :queue AND held_until IS NULL"
# What is held no longer waits, though nobody has claimed it yet.
_LAPSED = "FROM requests_messages WHERE queue = :queue AND held_until <= :now"
_DEPTH = (
    f"SELECT (SELECT count(*) {_WAITING}) + (SELECT count(*) {_LAPSED})",
    "SELECT count(*) FROM requests_messages WHERE queue = :queue AND held_until > :now",
    "SELECT count(*) FROM requests_results WHERE queue = :results",
    "SELECT arrived FROM requests_messages WHERE queue = :queue ORDER BY number LIMIT 1",
    f"SELECT min(first) FROM (SELECT min(deadline) AS first {_WAITING} UNION ALL SELECT min(deadline) {_LAPSED}) AS "
    "firsts",
)


def depth_of(connection: sa.Connection, queue: str, results: str, now: float) -> Depth:
    """The depth of `queue`, and of the queue `results`; `now` by the database's clock."""
    asked = {"queue": queue, "results": results, "now": now}
    waiting, held, unread, oldest, first = (connection.scalar(sa.text(query), asked) for query in _DEPTH)
    has_deadline = first is not None and first < NO_DEADLINE
    return Depth(waiting or 0, held or 0, unread or 0, oldest, first if has_deadline else None)
