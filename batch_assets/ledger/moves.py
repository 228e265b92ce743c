"""Moves of shards that nobody holds: by compare-and-set, in bulk.

The moves of a held shard, which take its fence, are in `claims.py`; commit markers are believed in `adopting.py`.
"""

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from batch_assets.ledger.changing import (
    BATCH,
    reserve_revisions,
)
from batch_assets.ledger.places import still_at
from batch_assets.ledger.rows import Place
from batch_assets.ledger.schema import jobs, pipelines, shards, submissions
from batch_assets.ledger.states import AT_SERVICE, ENDED, MOVES, State
from batch_assets.ledger.store import Store, batches, repeatable
from batch_assets.ledger.story import Event, Told

_BY_ORDER, _GOES_ON = "ordered by a person", "costs no attempt; the next run goes on"
_STARTED = Told(Event.STARTED, "the order to stop was lifted")
_MOVE_VALUES = frozenset({"rejected", "tokens", "error", "run_id"})
# These need a fence, or a job: the claims make them, and the submissions.
_NOT_BY_MOVE = frozenset({State.QUEUED, *AT_SERVICE, *ENDED, State.COLLECTING, State.COLLECTED}) - {
    State.STOPPED
}
# What a service has, held by nobody, moves as the service says.
_FREE = sa.and_(
    shards.c.holder.is_(None), shards.c.superseded == sa.false(), shards.c.state.not_in(AT_SERVICE)
)
# A shard to be computed again counts as not embedded; what its input rejects stays known.
_AFRESH: dict[str, Any] = {
    "attempt": 0, "embedded": 0, "failed": 0, "error": None,
    "job": None, "collections": 0, "keep_fence": None,
}  # fmt: skip
_JOB = sa.and_(
    jobs.c.pipeline == shards.c.pipeline, jobs.c.shard == shards.c.key, jobs.c.fence == shards.c.job
)


class Moves(Store):
    """The part of the Ledger that moves shards without a claim."""

    def move(
        self,
        pipeline: str,
        keys: Sequence[str],
        frm: Collection[State],
        to: State,
        *,
        place: Place | None = None,
        **values: Any,
    ) -> list[str]:
        """Move those of `keys` that stand in one of `frm`; the keys moved.

        A shard that somebody holds, a service included, or that is superseded, stays where it is,
        and so does every one where the pipeline is not at `place` any more.
        `values`: rejected, tokens, error, run_id. ValueError for a move that `MOVES` does not have
        or that needs a claim or a job, before anything moves.
        """
        for state in frm:
            if to not in MOVES[state]:
                raise ValueError(f"a shard cannot move from {state} to {to}")
        if to in _NOT_BY_MOVE:
            raise ValueError(f"a shard becomes {to} by its claim only, or as its job does")
        if unknown := values.keys() - _MOVE_VALUES:
            raise ValueError(f"a move does not set {', '.join(sorted(unknown))}")
        moved: list[str] = []
        for start in range(0, len(keys), BATCH):
            some = shards.c.key.in_(keys[start : start + BATCH])
            condition = sa.and_(some, shards.c.state.in_(frm), _FREE, still_at(pipeline, place))
            told = Told(Event.STOPPED, _BY_ORDER, _GOES_ON) if to is State.STOPPED else None
            moved += self._change_batch(pipeline, condition, {"state": to, **values}, told)
        return moved

    def withdraw(self, pipeline: str, keys: Sequence[str], why: str) -> list[str]:
        """Shards that nobody wants any more become EXHAUSTED before they begin; the keys moved.

        One that somebody holds, a service included, stays where it is, and so does one of which rows are committed.
        """
        waiting = shards.c.state.in_([State.PREPARED, State.READY, State.QUEUED])
        values = {"state": State.EXHAUSTED, "error": why, "job": None}
        told = Told(Event.WITHDRAWN, why, "it is not computed")
        moved: list[str] = []
        for some in batches(keys):
            condition = sa.and_(shards.c.key.in_(some), waiting, shards.c.fingerprint.is_(None), _FREE)
            moved += self._change_batch(pipeline, condition, values, told)
        return moved

    def retry(self, pipeline: str, keys: Sequence[str] | None = None) -> list[str]:
        """Exhausted shards start anew, with all their attempts again; None: every one.

        One whose job ended at the service, and was never paid for in the books, is to be
        collected again instead: its results are there.
        """
        values = {"attempt": 0, "collections": 0}
        moved: list[str] = []
        for state in sorted(ENDED):
            ended = _has_job(jobs.c.cost_usd.is_(None), submissions.c.state == state)
            now = {**values, "state": state, "collect_after": self._clock()}
            there = Told(Event.RETRIED, _BY_ORDER, "its last job's results are collected again")
            moved += self._again(pipeline, keys, State.EXHAUSTED, now, ended, told=there)
        start = {**values, "state": self._start(pipeline)}
        anew = Told(Event.RETRIED, _BY_ORDER, "it has all its attempts again")
        return sorted(moved + self._again(pipeline, keys, State.EXHAUSTED, start, told=anew))

    def recompute(
        self,
        pipeline: str,
        keys: Sequence[str],
        *,
        why: str = _BY_ORDER,
        keep: bool = False,
        place: Place | None = None,
    ) -> list[str]:
        """Collected shards start anew: the commit markers they have now count no longer.

        None does where the pipeline is not at `place` any more: those there are not the ones that were looked at.
        With `keep` their rows do: `keep_fence` is then the fence of the commit that has them.
        """
        values = {**_AFRESH, "state": self._start(pipeline), "outdated_fence": shards.c.fence}
        if keep:
            values["keep_fence"] = sa.func.coalesce(shards.c.commit_fence, shards.c.fence)
        told = Told(Event.RECOMPUTED, why, "its good rows are kept" if keep else "all of it is computed")
        return self._again(pipeline, keys, State.COLLECTED, values, still_at(pipeline, place), told=told)

    def plan_again(self, pipeline: str, keys: Sequence[str], states: Collection[State]) -> list[str]:
        """Shards whose input is another one by now begin as if nothing had been done; the keys moved.

        Of those in `states`: COLLECTED, EXHAUSTED, and PREPARED or READY without a job. The commit
        markers that they have now count no longer.
        """
        values = {**_AFRESH, "state": State.PLANNED, "rejected": 0, "tokens": None}
        values |= {"outdated_fence": shards.c.fence}
        over, jobless = (State.COLLECTED, State.EXHAUSTED), shards.c.job.is_(None)
        parts = ((state, None if state in over else jobless) for state in sorted(states))
        told = Told(Event.PLANNED, "its input is another one by now", "begun as if nothing had been done")
        return sorted(
            key
            for state, more in parts
            for key in self._again(pipeline, keys, state, values, more, told=told)
        )

    def mark_stale(self, pipeline: str, fingerprint: str) -> list[str]:
        """Collected shards of another fingerprint than `fingerprint` start anew; their keys."""
        other = shards.c.fingerprint.is_distinct_from(fingerprint)
        condition = sa.and_(shards.c.state == State.COLLECTED, _FREE, other)
        told = Told(Event.RECOMPUTED, f"the fingerprint is {fingerprint} by now", "all of it is computed")
        return self._change_all(pipeline, condition, {**_AFRESH, "state": self._start(pipeline)}, told)

    @repeatable
    def stop(self, pipeline: str) -> list[str]:
        """Waiting shards become STOPPED, and runs are asked to stop (`stop_requested`); the keys stopped.

        What a service has is stopped there, by others.
        """
        with self._database.write() as connection:
            named = sa.update(pipelines).where(pipelines.c.name == pipeline)
            if connection.execute(named.values(stop_requested=True)).rowcount:
                reserve_revisions(connection, pipeline, 1)
        waiting = shards.c.state.in_([State.READY, State.QUEUED])
        told = Told(Event.STOPPED, _BY_ORDER, _GOES_ON)
        return self._change_all(pipeline, sa.and_(waiting, _FREE), {"state": State.STOPPED}, told)

    def start_again(self, pipeline: str, keys: Sequence[str] | None = None) -> list[str]:
        """Stopped shards go on, None: every one; the order to stop is lifted by `clear_stop`.

        A job that was never submitted is in place again, where it stood in the queue. One that
        ended at the service stays STOPPED: `claim` takes it to be collected.
        """
        never = jobs.c.submission.is_(None)
        of_job = sa.select(jobs.c.queued_at, jobs.c.records).where(_JOB).correlate(shards)
        queued = {
            "state": State.QUEUED,
            "queued_at": of_job.with_only_columns(jobs.c.queued_at).scalar_subquery(),
            "queued_records": of_job.with_only_columns(jobs.c.records).scalar_subquery(),
        }
        on_demand = {"state": State.READY, "collect_after": self._clock()}
        started: list[str] = []
        for kind, values in (("batch", queued), ("on_demand", on_demand)):
            waits = _has_job(never, jobs.c.kind == kind)
            started += self._again(pipeline, keys, State.STOPPED, values, waits, told=_STARTED)
        start, jobless = {"state": self._start(pipeline)}, shards.c.job.is_(None)
        return sorted(started + self._again(pipeline, keys, State.STOPPED, start, jobless, told=_STARTED))

    @repeatable
    def _start(self, pipeline: str) -> State:
        """Where a shard begins whose input is prepared."""
        with self._database.read() as connection:
            query = sa.select(pipelines.c.deferred).where(pipelines.c.name == pipeline)
            return State.PREPARED if connection.scalar(query) else State.READY

    def _again(
        self,
        pipeline: str,
        keys: Sequence[str] | None,
        state: State,
        values: dict[str, Any],
        further: sa.ColumnElement[bool] | None = None,
        *,
        told: Told,
    ) -> list[str]:
        condition = sa.and_(shards.c.state == state, _FREE, *([] if further is None else [further]))
        if keys is None:
            return self._change_all(pipeline, condition, values, told)
        changed: list[str] = []
        for start in range(0, len(keys), BATCH):
            some = shards.c.key.in_(keys[start : start + BATCH])
            changed += self._change_all(pipeline, sa.and_(some, condition), values, told)
        return changed


def _has_job(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Whether the shard's newest job is such, with its submission where it has one."""
    joined = sa.select(jobs.c.fence).outerjoin(submissions, submissions.c.token == jobs.c.submission)
    return joined.where(_JOB, *conditions).correlate(shards).exists()
