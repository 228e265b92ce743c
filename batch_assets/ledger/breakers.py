"""Breakers: what may be submitted of a pipeline whose jobs fail as a whole, one after the other.

No row: everything. The row goes where a job does well. What a failure as a whole is, and what becomes
of its records, is for `control/breaker.py` to know; that the claims of submissions heed it, for `choosing.py`.
"""

from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from batch_assets.ledger.reading import recent_changes
from batch_assets.ledger.rows import BreakerRow, WholeFailure
from batch_assets.ledger.schema import breakers
from batch_assets.ledger.states import BreakerState, State
from batch_assets.ledger.store import Store, repeatable

_LOOKED_AT = 1_000


class Breakers(Store):
    """The part of the Ledger that counts jobs which fail as a whole."""

    @repeatable
    def breaker(self, pipeline: str) -> BreakerRow | None:
        """The pipeline's breaker; None where its last job did well, or none has failed as a whole."""
        with self._database.read() as connection:
            return _read(connection, pipeline)

    @repeatable
    def failed_as_a_whole(self, pipeline: str, failure: WholeFailure, trip_at: int) -> BreakerRow:
        """Count a failure, once for each job; what it has come to.

        The first `trip_at` of one kind in a row leave one job at a time; one more, of any kind, none.
        """
        with self._database.write() as connection:
            known = _read(connection, pipeline)
            row = _after(known, pipeline, failure, trip_at, self._clock())
            if row != known:
                connection.execute(sa.delete(breakers).where(breakers.c.pipeline == pipeline))
                connection.execute(sa.insert(breakers).values(**vars(row)))
            return row

    @repeatable
    def did_well(self, pipeline: str) -> None:
        """A job did well, if in part: jobs are submitted as ever."""
        if self.breaker(pipeline) is None:
            return  # the normal case writes nothing
        with self._database.write() as connection:
            connection.execute(sa.delete(breakers).where(breakers.c.pipeline == pipeline))

    @repeatable
    def probe_anew(self, pipeline: str, settings: str | None = None) -> bool:
        """A person has changed something (`settings` is the digest then), or says to try again: one job goes first.

        False where nothing was held back.
        """
        with self._database.write() as connection:
            known = _read(connection, pipeline)
            if known is None or known.settings == settings:
                return False
            here, now = breakers.c.pipeline == pipeline, self._clock()
            if known.state is BreakerState.COUNTING:
                connection.execute(sa.delete(breakers).where(here))
                return False
            values: dict[str, Any] = {"state": BreakerState.PROBING, "since": now, "renewed_at": now}
            values["insisted"] = settings is None
            connection.execute(
                sa.update(breakers).where(here).values(settings=settings or known.settings, **values)
            )
            return True

    @repeatable
    def collected_since(self, pipeline: str, since: float) -> bool:
        """Whether a shard with any good record was committed since then, by the shards that have changed last."""
        with self._database.read() as connection:
            rows = recent_changes(connection, pipeline, _LOOKED_AT)
        return any(row.state == State.COLLECTED and row.embedded and row.updated_at >= since for row in rows)


def _read(connection: sa.Connection, pipeline: str) -> BreakerRow | None:
    query = sa.select(breakers).where(breakers.c.pipeline == pipeline)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        return None
    fields: dict[str, Any] = {**row, "state": BreakerState(row["state"])}
    return BreakerRow(**fields)


def _after(
    known: BreakerRow | None, pipeline: str, failure: WholeFailure, trip_at: int, now: float
) -> BreakerRow:
    """The breaker after one more failure; as it was where this one is known, or tells nothing new."""
    told = {name: getattr(failure, name) for name in ("alike", "message", "job")}
    if known is None or (known.state is BreakerState.COUNTING and known.alike != failure.alike):
        state = BreakerState.PROBING if trip_at <= 1 else BreakerState.COUNTING
        return BreakerRow(
            pipeline=pipeline, state=state, failures=1, since=now, settings=failure.settings,
            renewed_at=0.0, insisted=False, **told,
        )  # fmt: skip
    if known.job == failure.job or known.state is BreakerState.OPEN or failure.claimed_at < known.renewed_at:
        return known
    failures = known.failures + 1
    if known.state is BreakerState.PROBING:
        return replace(known, state=BreakerState.OPEN, failures=failures, since=now, **told)
    state = BreakerState.PROBING if failures >= trip_at else BreakerState.COUNTING
    return replace(known, state=state, failures=failures, since=now, **told)
