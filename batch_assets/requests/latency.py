"""How long requests took from their arrival to their committed result: of those that ended last."""

import sqlalchemy as sa

from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets.requests.database import RequestsDatabase

NEWEST_WINDOWS, MOST_REQUESTS = 200, 5_000


def recent_latencies(database: RequestsDatabase, ledger: Ledger, pipeline: str) -> list[float]:
    """Seconds of each of the newest requests that are done, a bounded number of them, in no order.

    A request of a shard that was computed again took as long as its shard's last commit says.
    """
    database.prepare()
    with database.read() as connection:
        segments = connection.execute(_SEGMENTS, {"pipeline": pipeline, "most": NEWEST_WINDOWS}).all()
    keys = sorted({row.shard for row in segments})
    done = {row.key: row.updated_at for row in ledger.shards(pipeline, keys=keys, states=[State.COLLECTED])}
    found: list[float] = []
    with database.read() as connection:
        for row in segments:
            if row.shard not in done or len(found) >= MOST_REQUESTS:
                continue
            arrivals = connection.scalars(
                _ARRIVALS,
                {
                    "pipeline": pipeline,
                    "window": row.window_name,
                    "first": row.first_row,
                    "last": row.last_row,
                    "most": MOST_REQUESTS - len(found),
                },
            )
            found += [max(done[row.shard] - arrived, 0.0) for arrived in arrivals]
    return found


_SEGMENTS = sa.text(
    "SELECT window_name, first_row, last_row, shard FROM requests_segments JOIN ("
    "SELECT name, generation FROM requests_windows WHERE pipeline = :pipeline AND generation IS NOT NULL "
    "ORDER BY generation DESC LIMIT :most) AS newest ON name = window_name "
    "WHERE pipeline = :pipeline ORDER BY generation DESC, window_name, first_row"
)
_ARRIVALS = sa.text(
    "SELECT arrived FROM requests_accepted WHERE pipeline = :pipeline AND window_name = :window "
    "AND line >= :first AND line < :last ORDER BY line LIMIT :most"
)
