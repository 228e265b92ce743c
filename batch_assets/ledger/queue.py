"""The way of a shard of a deferred pipeline into the queue, and what there is to collect.

Claims are in `claims.py`; what leaves the queue for the service, in `submissions.py`.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from batch_assets.ledger.budget import rounded_usd
from batch_assets.ledger.changing import change_shards
from batch_assets.ledger.claims import HELD, NOBODY, held_by
from batch_assets.ledger.leases import is_void
from batch_assets.ledger.rows import SHARD_COLUMNS, Claim, JobKind, ShardRow, shard_row
from batch_assets.ledger.schema import breakers, jobs, pipelines, shards
from batch_assets.ledger.states import State
from batch_assets.ledger.store import Store, batches, repeatable
from batch_assets.ledger.story import Event, Told

_TOO_SMALL = ("too few records are left for a batch job", "they are called for one by one")
_PREPARED_AGAIN = ("what its job asks for is gone, or not what is asked for now", "prepared again")
_KINDS: dict[JobKind, str] = {"batch": "for a batch job", "on_demand": "to be called for one by one"}


class Queue(Store):
    """The part of the Ledger that keeps jobs before their submission, and after it."""

    @repeatable
    def set_deferred(self, pipeline: str, deferred: bool) -> None:
        """Say whether the pipeline's shards are jobs at a service; those that wait go to where that begins."""
        with self._database.read() as connection:
            query = sa.select(pipelines.c.deferred).where(pipelines.c.name == pipeline)
            if connection.scalar(query) == deferred:
                return
        here = sa.and_(shards.c.holder.is_(None), shards.c.superseded == sa.false())
        wrong = State.READY if deferred else State.QUEUED
        start = State.PREPARED if deferred else State.READY
        if not deferred:
            # Nobody would find out any more that one of these holders is dead.
            rendering = sa.and_(shards.c.state == State.PREPARED, shards.c.holder.is_not(None))
            self._change_all(pipeline, rendering, NOBODY)
        # Before the flag: a crash in between repeats it.
        self._change_all(pipeline, sa.and_(here, shards.c.state == wrong), {"state": start, "job": None})
        with self._database.write() as connection:
            named = sa.update(pipelines).where(pipelines.c.name == pipeline)
            connection.execute(named.values(deferred=deferred))
            if not deferred:
                connection.execute(sa.delete(breakers).where(breakers.c.pipeline == pipeline))

    @repeatable
    def enqueue(
        self,
        claim: Claim,
        kind: JobKind,
        records: int,
        bytes: int,
        bound_usd: float,
        digest: str = "",
        *,
        outdated_fence: int = -1,
        why: tuple[str, str] | None = None,
    ) -> bool:
        """Put the claimed shard's next job in place, and give the claim back. False: the claim is lost.

        → QUEUED for a `batch` job, whose request files of `bytes` are uploaded; → READY for an
        `on_demand` one. `bound_usd` is the most that its `records` can cost. The job's fence is
        the claim's. A commit up to `outdated_fence` counts no longer. `why` there is another one: what became of
        the last one, and what was decided.
        """
        if records < (kind == "batch") or bound_usd < 0:
            raise ValueError(f"a job of {records} records for at most {bound_usd} USD cannot be")
        with self._database.write() as connection:
            now = self._clock()
            values = {**waiting_for_job(kind, claim.fence, records, now), "error": None, **NOBODY}
            if outdated_fence >= 0:
                older = shards.c.outdated_fence < outdated_fence
                values["outdated_fence"] = sa.case((older, outdated_fence), else_=shards.c.outdated_fence)
            condition = sa.and_(held_by(claim), shards.c.state.in_((State.PREPARED, *HELD)))
            reason, decision = why or ("", f"{records:,} records, {_KINDS[kind]}")
            told = Told(Event.QUEUED, reason, decision)
            if not change_shards(connection, claim.pipeline, condition, values, now, told):
                return False
            connection.execute(
                sa.insert(jobs).values(
                    pipeline=claim.pipeline, shard=claim.shard, fence=claim.fence, kind=kind,
                    records=records, bytes=bytes, bound_usd=rounded_usd(bound_usd), queued_at=now,
                    digest=digest,
                )
            )  # fmt: skip
            return True

    def call_one_by_one(self, pipeline: str, keys: Sequence[str]) -> list[str]:
        """Queued jobs too small for the service become READY on-demand ones; the keys moved."""
        return self._leave_queue(pipeline, keys, "on_demand")

    def prepare_again(self, pipeline: str, keys: Sequence[str]) -> list[str]:
        """Queued shards whose request files are gone become PREPARED; the keys moved."""
        return self._leave_queue(pipeline, keys, None)

    def _leave_queue(self, pipeline: str, keys: Sequence[str], kind: JobKind | None) -> list[str]:
        return [key for some in batches(keys) for key in self._leave_queue_batch(pipeline, some, kind)]

    @repeatable
    def _leave_queue_batch(self, pipeline: str, some: Sequence[str], kind: JobKind | None) -> list[str]:
        with self._database.write() as connection:
            now = self._clock()
            queued = sa.and_(
                shards.c.key.in_(some), shards.c.state == State.QUEUED, shards.c.holder.is_(None)
            )
            if kind is None:
                values: dict[str, Any] = {"state": State.PREPARED, "job": None}
            else:
                values = {"state": State.READY, "collect_after": now}
                named = sa.select(shards.c.job).where(
                    shards.c.pipeline == pipeline, shards.c.key == jobs.c.shard, queued
                )
                ours = (jobs.c.pipeline == pipeline, jobs.c.shard.in_(some))
                newest = jobs.c.fence == named.correlate(jobs).scalar_subquery()
                connection.execute(sa.update(jobs).where(*ours, newest).values(kind=kind))
            told = Told(Event.QUEUED, *(_TOO_SMALL if kind is not None else _PREPARED_AGAIN))
            return change_shards(connection, pipeline, queued, values, now, told)

    @repeatable
    def finished(self, pipeline: str, limit: int) -> list[ShardRow]:
        """Shards that can be collected now, at most `limit`: those that died in it first, then as they ended.

        They have ended at their service, or are READY with a job for on-demand calls. While the
        pipeline is to stop, those STOPPED are left as they are.
        """
        here = (shards.c.pipeline == pipeline, shards.c.superseded == sa.false())
        now = self._clock()
        with self._database.read() as connection:
            row = connection.execute(
                sa.select(pipelines.c.deferred, pipelines.c.stop_requested).where(
                    pipelines.c.name == pipeline
                )
            ).one_or_none()
            if row is None or not row.deferred:
                return []
            held = sa.select(*SHARD_COLUMNS, shards.c.lease_until).where(
                *here, shards.c.holder.is_not(None), shards.c.before.is_not(None), shards.c.state.in_(HELD)
            )
            void = [
                shard_row(found)
                for found in connection.execute(held).mappings()
                if is_void(found["holder"], found["lease_until"], self._judged_at(now))
            ]
            due = sa.select(*SHARD_COLUMNS).where(
                *here, shards.c.collect_after.is_not(None), shards.c.collect_after <= now
            )
            if row.stop_requested:
                due = due.where(shards.c.state != State.STOPPED)
            due = due.order_by(shards.c.collect_after, shards.c.key).limit(limit)
            void.sort(key=lambda one: one.key)
            return [*void, *(shard_row(found) for found in connection.execute(due).mappings())][:limit]


def waiting_for_job(kind: JobKind, fence: int, records: int, now: float) -> dict[str, Any]:
    """The values of a shard whose newest job waits to be submitted, or to be called for."""
    values: dict[str, Any] = {"job": fence, "collections": 0}
    if kind == "on_demand":
        return {**values, "state": State.READY, "collect_after": now}
    return {**values, "state": State.QUEUED, "queued_at": now, "queued_records": records}
