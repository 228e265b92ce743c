"""Breakers: what may be submitted of a pipeline whose jobs fail as a whole, with none between that does well.

No row: everything. The row goes where a job does well, and where nothing is held back by it any more. What a failure
as a whole is, and what becomes of its records, is for `control/breaker.py` to know; that the claims of submissions
heed it, for `choosing.py`.
"""

from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from batch_assets.ledger.rows import BreakerRow, WholeFailure
from batch_assets.ledger.schema import breakers, jobs, pipelines
from batch_assets.ledger.states import BreakerState
from batch_assets.ledger.store import Store, repeatable
from batch_assets.retry_policy import whole_failures_that_last


class Breakers(Store):
    """The part of the Ledger that counts jobs which fail as a whole."""

    @repeatable
    def breaker(self, pipeline: str) -> BreakerRow | None:
        """The pipeline's breaker; None where no job has failed as a whole since one did well."""
        with self._database.read() as connection:
            return _read(connection, pipeline)

    @repeatable
    def failed_as_a_whole(self, pipeline: str, failure: WholeFailure, trip_at: int) -> BreakerRow | None:
        """Count a failure, once for each job of the ledger's; what it has come to.

        The first `trip_at` of one kind in a row leave one submission at a time; what lasts after that, none. None
        where the job was counted before, and one has done well since, or a person's insisting has come to its end.
        """
        job = (jobs.c.pipeline == pipeline, jobs.c.shard == failure.shard, jobs.c.fence == failure.fence)
        with self._database.write() as connection:
            known = _read(connection, pipeline)
            first = sa.update(jobs).where(*job, jobs.c.failed_whole == sa.false()).values(failed_whole=True)
            if connection.execute(first).rowcount == 0:
                return known
            row = _after(known, pipeline, failure, trip_at, self._clock())
            if row != known:
                connection.execute(sa.delete(breakers).where(breakers.c.pipeline == pipeline))
                connection.execute(sa.insert(breakers).values(**vars(row)))
            return row

    @repeatable
    def close_breaker(self, pipeline: str) -> None:
        """A job did well, if in part, or nothing is held back any more: jobs are submitted as ever."""
        if self.breaker(pipeline) is None:
            return  # the normal case writes nothing
        with self._database.write() as connection:
            connection.execute(sa.delete(breakers).where(breakers.c.pipeline == pipeline))

    @repeatable
    def probe_anew(self, pipeline: str, settings: str | None = None) -> bool:
        """A person tries other `settings` (their digest), or says to try again: one submission goes first.

        False where nothing was held back, or these settings were tried since it all began: two processes may have
        different ones, and ask by turns.
        """
        with self._database.write() as connection:
            known = _read(connection, pipeline)
            if known is None or settings in known.settings.split():
                return False
            here, now = breakers.c.pipeline == pipeline, self._clock()
            counting = known.state is BreakerState.COUNTING
            if counting and settings is None:
                connection.execute(sa.delete(breakers).where(here))
                return False
            tried = known.settings if settings is None else f"{known.settings} {settings}"
            values: dict[str, Any] = {"settings": tried, "renewed_at": now}
            if counting:
                values["failures"] = 0
            else:
                values |= {"state": BreakerState.PROBING, "since": now, "insisted": settings is None}
            connection.execute(sa.update(breakers).where(here).values(values))
            return not counting

    @repeatable
    def did_well_since(self, pipeline: str, since: float) -> bool:
        """Whether a shard was committed since then of which any record did well."""
        query = sa.select(pipelines.c.did_well_at).where(pipelines.c.name == pipeline)
        with self._database.read() as connection:
            return (connection.scalar(query) or 0.0) >= since


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
    told = {"alike": failure.alike, "message": failure.message}
    if known is None:
        state = BreakerState.PROBING if trip_at <= 1 else BreakerState.COUNTING
        return BreakerRow(
            pipeline=pipeline, state=state, failures=1, since=now, settings=failure.settings,
            renewed_at=0.0, insisted=False, **told,
        )  # fmt: skip
    if failure.claimed_at < known.renewed_at:
        return known
    failures = known.failures + 1
    if known.state is BreakerState.OPEN:
        return replace(known, failures=failures)
    if known.state is BreakerState.PROBING:
        is_probe = failure.claimed_at >= known.since
        if not is_probe and failures < whole_failures_that_last(failure.jobs):
            return replace(known, failures=failures)
        return replace(known, state=BreakerState.OPEN, failures=failures, since=now, **told)
    failures = failures if known.alike == failure.alike else 1
    state = BreakerState.PROBING if failures >= trip_at else BreakerState.COUNTING
    return replace(known, state=state, failures=failures, since=now, **told)
