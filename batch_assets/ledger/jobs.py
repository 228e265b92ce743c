"""What the ledger tells of jobs and submissions.

What becomes of them is in `queue.py`, `submissions.py` and `money.py`.
"""

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from batch_assets.ledger.choosing import read_jobs
from batch_assets.ledger.rows import JobRow, SubmissionRow
from batch_assets.ledger.schema import jobs, shards, submissions
from batch_assets.ledger.states import LIVE_SUBMISSION, State, SubmissionState
from batch_assets.ledger.store import Store, repeatable

_COLUMNS = tuple(submissions.c[name] for name in SubmissionRow.__dataclass_fields__)


class Jobs(Store):
    """The part of the Ledger that is asked about work at a service."""

    def submissions(
        self,
        scope: str | None = None,
        pipeline: str | None = None,
        states: Collection[SubmissionState] | None = None,
        limit: int | None = None,
        ended_since: float | None = None,
    ) -> list[SubmissionRow]:
        """Submissions in the order in which they were claimed, at most `limit`; `ended_since` is unix seconds."""
        where: list[sa.ColumnElement[bool]] = []
        if scope is not None:
            where.append(submissions.c.scope == scope)
        if pipeline is not None:
            where.append(submissions.c.pipeline == pipeline)
        if states is not None:
            where.append(submissions.c.state.in_(states))
        if ended_since is not None:
            where.append(submissions.c.ended_at >= ended_since)
        return self._submissions(sa.and_(sa.true(), *where), limit)

    def submission(self, token: str) -> SubmissionRow | None:
        """One submission; None where the ledger knows none of this token."""
        return self._one(submissions.c.token == token)

    def submission_by_service_id(self, service_id: str) -> SubmissionRow | None:
        """The submission that the service knows by this identifier, or None."""
        return self._one(submissions.c.service_id == service_id)

    def submission_by_name(self, name: str) -> SubmissionRow | None:
        """The submission of this name, the newest if there are several; or None."""
        return self._one(submissions.c.name == name)

    @repeatable
    def jobs_of(self, token: str) -> list[JobRow]:
        """The jobs that a submission carries, by shard."""
        with self._database.read() as connection:
            return read_jobs(connection, jobs.c.submission == token)

    @repeatable
    def job(self, pipeline: str, shard: str, fence: int) -> JobRow | None:
        """One job, or None."""
        one = sa.and_(jobs.c.pipeline == pipeline, jobs.c.shard == shard, jobs.c.fence == fence)
        with self._database.read() as connection:
            return next(iter(read_jobs(connection, one)), None)

    @repeatable
    def unsettled(self, pipeline: str) -> list[JobRow]:
        """Jobs that hold money though nobody will collect them any more, for `settle`.

        They have ended, or were on-demand; and their shard was superseded, committed by another,
        or given a newer job.
        """
        alive = (
            sa.select(submissions.c.token)
            .where(
                submissions.c.token == jobs.c.submission,
                submissions.c.state.in_(LIVE_SUBMISSION),
                jobs.c.state.is_(None),
            )
            .correlate(jobs)
            .exists()
        )
        awaited = (
            sa.select(shards.c.key)
            .where(
                shards.c.pipeline == jobs.c.pipeline,
                shards.c.key == jobs.c.shard,
                shards.c.job == jobs.c.fence,
                shards.c.superseded == sa.false(),
                shards.c.state != State.COLLECTED,
            )
            .correlate(jobs)
            .exists()
        )
        with self._database.read() as connection:
            held = sa.and_(jobs.c.pipeline == pipeline, jobs.c.held_usd.is_not(None))
            return read_jobs(connection, sa.and_(held, ~alive, ~awaited))

    def _one(self, condition: sa.ColumnElement[bool]) -> SubmissionRow | None:
        found = self._submissions(condition, None)
        return found[-1] if found else None

    @repeatable
    def _submissions(self, condition: sa.ColumnElement[bool], limit: int | None) -> list[SubmissionRow]:
        query = sa.select(*_COLUMNS).where(condition).order_by(submissions.c.claimed_at, submissions.c.token)
        with self._database.read() as connection:
            rows = connection.execute(query.limit(limit)).mappings().all()
        return [_submission_row(row) for row in rows]


def _submission_row(values: Mapping[Any, Any]) -> SubmissionRow:
    fields: dict[str, Any] = {name: values[name] for name in SubmissionRow.__dataclass_fields__}
    fields["state"] = SubmissionState(values["state"])
    return SubmissionRow(**fields)
