"""After a lost ledger, or a lost answer: jobs that exist are known again, where they are, and paid for once.

What there is to be found is read by `control/`: descriptors under the output root, the service's
list of jobs. What has been spent is in `money.py`; commit markers are believed in `adopting.py`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from batch_assets.ledger.budget import rounded_usd
from batch_assets.ledger.changing import change_shards
from batch_assets.ledger.choosing import read_jobs
from batch_assets.ledger.money import add_money
from batch_assets.ledger.queue import waiting_for_job
from batch_assets.ledger.rows import JobKind, JobRow
from batch_assets.ledger.schema import jobs, pipelines, shards
from batch_assets.ledger.states import ENDED_SUBMISSION, State, SubmissionState
from batch_assets.ledger.store import Store, repeatable
from batch_assets.ledger.story import Event, Told
from batch_assets.ledger.submissions import (
    bind_job,
    insert_submission,
    is_job,
    read_submission,
    update_submission,
)

_BEFORE_SERVICE = (State.PLANNED, State.PREPARED, State.QUEUED, State.STOPPED)


class Recovery(Store):
    """The part of the Ledger that learns of jobs which it should have known."""

    @repeatable
    def restore_queued(
        self,
        pipeline: str,
        key: str,
        fence: int,
        kind: JobKind,
        records: int,
        bytes: int,
        bound_usd: float,
        digest: str = "",
    ) -> bool:
        """After a lost ledger: put a job in place that was rendered under `fence`; whether it is.

        False for a shard that is further on, held, superseded, or has a newer job.
        """
        with self._database.write() as connection:
            now = self._clock()
            values = {**waiting_for_job(kind, fence, records, now), "fence": _at_least(fence)}
            condition = sa.and_(
                shards.c.key == key, shards.c.holder.is_(None), shards.c.superseded == sa.false(),
                shards.c.state.in_((State.PLANNED, State.PREPARED)),
                sa.or_(shards.c.job.is_(None), shards.c.job < fence),
            )  # fmt: skip
            one = (jobs.c.pipeline == pipeline, jobs.c.shard == key, jobs.c.fence == fence)
            if connection.scalar(sa.select(jobs.c.fence).where(*one)) is not None:
                return False
            told = Told(Event.ADOPTED, "its job was found under the output root", "in the queue")
            if not change_shards(connection, pipeline, condition, values, now, told):
                return False
            connection.execute(
                sa.insert(jobs).values(
                    pipeline=pipeline, shard=key, fence=fence, kind=kind, records=records, bytes=bytes,
                    bound_usd=rounded_usd(bound_usd), queued_at=now, digest=digest,
                )
            )  # fmt: skip
            return True

    @repeatable
    def set_recovered(self, pipeline: str) -> None:
        """All jobs under the pipeline's root, and at its service, are known to this ledger."""
        with self._database.write() as connection:
            named = sa.update(pipelines).where(pipelines.c.name == pipeline)
            connection.execute(named.values(recovered=True))

    @repeatable
    def adopt_submission(
        self,
        token: str,
        name: str,
        scope: str,
        service_id: str,
        carried: Sequence[JobRow],
        submitted_at: float | None = None,
    ) -> list[str]:
        """Remember a submission that exists at the service, with its jobs, after a lost ledger.

        What is known stays as it is. Shards that were not known to be at the service become
        SUBMITTED, an attempt counted; `observe` then says more. Returns the keys of the shards
        moved. The jobs, all of one pipeline, need no more than their first fields.
        """
        with self._database.write() as connection:
            now = self._clock()
            pipeline = carried[0].pipeline
            row = read_submission(connection, token)
            if row is not None and row.state in ENDED_SUBMISSION:
                return []
            if row is None or row.state == SubmissionState.REFUSED:
                insert_submission(
                    connection, token, name, scope, carried, state=SubmissionState.SUBMITTED,
                    service_id=service_id, submitted_at=now if submitted_at is None else submitted_at,
                    claimed_at=now if submitted_at is None else submitted_at,
                )  # fmt: skip
            elif row.state == SubmissionState.SUBMITTING:
                update_submission(connection, token, state=SubmissionState.SUBMITTED, service_id=service_id,
                        submitted_at=now if submitted_at is None else submitted_at)  # fmt: skip
            row = read_submission(connection, token)
            moved: list[str] = []
            told = Told(Event.ADOPTED, f"its job {name} was found at the service", "it goes on there")
            for job in carried:
                if not _adopt_job(connection, job, token, now):
                    continue
                values: dict[str, Any] = {"state": State(row.state)}
                waits = sa.and_(
                    shards.c.state.in_(_BEFORE_SERVICE),
                    sa.or_(shards.c.job.is_(None), shards.c.job <= job.fence),
                )
                here = sa.and_(
                    shards.c.key == job.shard, shards.c.holder.is_(None), shards.c.superseded == sa.false()
                )
                known = sa.and_(shards.c.state == State.SUBMITTING, shards.c.job == job.fence)
                moved += change_shards(connection, pipeline, sa.and_(here, known), values, now, told)
                values |= {"attempt": shards.c.attempt + 1, "job": job.fence, "fence": _at_least(job.fence)}
                moved += change_shards(connection, pipeline, sa.and_(here, waits), values, now, told)
            return moved


def _adopt_job(connection: sa.Connection, job: JobRow, token: str, now: float) -> bool:
    """Whether the job is this submission's: it was, it is new, or it was given to none."""
    known = next(iter(read_jobs(connection, sa.and_(*is_job(job)))), None)
    if known is None:
        bound = rounded_usd(job.bound_usd)
        connection.execute(
            sa.insert(jobs).values(
                pipeline=job.pipeline, shard=job.shard, fence=job.fence, kind=job.kind, records=job.records,
                bytes=job.bytes, bound_usd=bound, queued_at=now, digest=job.digest,
            )
        )  # fmt: skip
        known = replace(job, bound_usd=bound, submission=None, held_usd=None, cost_usd=None)
    if known.submission is None:
        add_money(connection, job.pipeline, held=known.bound_usd - (known.held_usd or 0.0))
        bind_job(connection, known, token)
        return True
    return known.submission == token


def _at_least(fence: int) -> sa.ColumnElement[int]:
    """The shard's fence, or this one if that is higher: fences never fall."""
    return sa.case((shards.c.fence < fence, fence), else_=shards.c.fence)
