"""The account of a pipeline's requests: accepted = completed + failed + cancelled + expired + open.

Each number has a source of its own: what was accepted and cancelled is counted where that happens, what has ended is
what the ledger says of shards, what is open is counted where it waits. So a request that was lost on the way shows.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import UNFINISHED
from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.store import (
    ACCEPTED,
    CANCELLED,
    EXPIRED,
    REMOVED_COMPLETED,
    REMOVED_FAILED,
    RequestStore,
)


@dataclass(frozen=True)
class RequestAccount:
    """How many requests there were, and what became of them; `oldest` is when the first open one came (unix seconds).

    `waiting` are those of the open ones that are in no window yet.
    """

    accepted: int
    completed: int
    failed: int
    cancelled: int
    expired: int
    open: int
    waiting: int = 0
    oldest: float | None = None

    @property
    def missing(self) -> int:
        """Requests that nobody accounts for; below zero where some are counted twice."""
        return self.accepted - self.completed - self.failed - self.cancelled - self.expired - self.open

    def line(self) -> str:
        """As `status` shows it."""
        return (
            f"requests: accepted={self.accepted} completed={self.completed} failed={self.failed} "
            f"cancelled={self.cancelled} expired={self.expired} open={self.open}"
        )


def read_account(database: RequestsDatabase, ledger: Ledger, pipeline: str) -> RequestAccount:
    """The account now. While requests move from one place to the next it may be out by those; the next one is not."""
    ends, totals = ledger.ends(pipeline), RequestStore(database).totals(pipeline)
    with database.read() as connection:
        waiting = connection.execute(_WAITING, {"pipeline": pipeline}).one()
        sealed = connection.execute(_SEALED, {"pipeline": pipeline}).one()
        oldest = [moment for moment in (waiting.oldest, sealed.oldest) if moment is not None]
        if ends.under_way:
            shards = [row.key for row in ledger.shards(pipeline, states=UNFINISHED, limit=1_000)]
            found = connection.scalar(_PLANNED, {"pipeline": pipeline, "shards": shards}) if shards else None
            oldest += [found] if found is not None else []
    return RequestAccount(
        totals[ACCEPTED],
        ends.embedded + totals[REMOVED_COMPLETED],
        ends.failed + totals[REMOVED_FAILED],
        totals[CANCELLED],
        totals[EXPIRED],
        waiting.requests + int(sealed.requests or 0) + ends.under_way,
        waiting.requests,
        min(oldest, default=None),
    )


_WAITING = sa.text(
    "SELECT count(*) AS requests, min(arrived) AS oldest FROM requests_accepted "
    "WHERE pipeline = :pipeline AND window_name IS NULL AND cancelled_at IS NULL"
)
_SEALED = sa.text(
    "SELECT sum(records) AS requests, min(opened) AS oldest FROM requests_windows "
    "WHERE pipeline = :pipeline AND generation IS NULL"
)
_PLANNED = sa.text(
    "SELECT min(opened) FROM requests_windows WHERE pipeline = :pipeline AND name IN "
    "(SELECT window_name FROM requests_segments WHERE pipeline = :pipeline AND shard IN :shards)"
).bindparams(sa.bindparam("shards", expanding=True))
