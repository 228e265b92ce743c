"""Claims on shards: leases with a fence, and what their holder may do while the fence is theirs.

A process that was taken for dead, or paused too long, finds a higher fence and can commit
nothing: every verb below compares before it sets. How a claim puts a shard into the queue of a
service is in `queue.py`.
"""

from typing import Any

import sqlalchemy as sa

from batch_assets.errors import ClaimLost
from batch_assets.ledger.changing import change_shards
from batch_assets.ledger.holder import Holder
from batch_assets.ledger.leases import is_void
from batch_assets.ledger.places import demand_place, still_at
from batch_assets.ledger.rows import Claim, Place
from batch_assets.ledger.schema import FENCES_PER_EPOCH, jobs, pipelines, shards, submissions
from batch_assets.ledger.states import ENDED, ENDED_SUBMISSION, State
from batch_assets.ledger.store import Store, repeatable
from batch_assets.ledger.story import Event, Told, kept_text
from batch_assets.retry_policy import LEASE_SECONDS, Cause, after_collection, after_failure

HELD = (State.RUNNING, State.COLLECTING)
NOBODY: dict[str, Any] = {"holder": None, "lease_until": None, "before": None}
_ERROR_CHARACTERS = 4_000


class Claims(Store):
    """The part of the Ledger that says who works on a shard."""

    @repeatable
    def claim(
        self,
        pipeline: str,
        key: str,
        holder: Holder,
        run_id: str | None = None,
        *,
        place: Place | None = None,
    ) -> Claim | None:
        """Take a shard that is READY or has ended at its service, or whose holder is void.

        None where it is not to be had. A READY shard becomes RUNNING, and an attempt is counted;
        one that has ended becomes COLLECTING, and none is. A shard that a service runs (RUNNING,
        held by nobody) is not to be had, nor is one STOPPED that no service ever had. Raises
        ClaimLost where the pipeline is not at `place` any more.
        """
        with self._database.write() as connection:
            demand_place(connection, pipeline, place)
            now = self._clock()
            row = _row(connection, pipeline, key)
            before = _claimable(connection, row, self._judged_at(now)) if row is not None else None
            if row is None or before is None:
                return None
            computes = before is State.READY
            attempt = row.attempt + 1 if computes else row.attempt
            claim = Claim(pipeline, key, _next_fence(connection, row), attempt, holder, before, place)
            state = State.RUNNING if computes else State.COLLECTING
            change_shards(
                connection,
                pipeline,
                shards.c.key == key,
                {"state": state, **_lease_of(claim, run_id, now)},
                now,
                _begun(row, computes),
            )
            return claim

    @repeatable
    def claim_preparation(
        self,
        pipeline: str,
        key: str,
        holder: Holder,
        run_id: str | None = None,
        *,
        place: Place | None = None,
    ) -> Claim | None:
        """Take a PREPARED shard to render its requests; None where it is not to be had.

        It stays PREPARED until `enqueue`. `attempt` is the one that this job will be. Raises
        ClaimLost where the pipeline is not at `place` any more.
        """
        with self._database.write() as connection:
            demand_place(connection, pipeline, place)
            now = self._clock()
            row = _row(connection, pipeline, key)
            if row is None or row.state != State.PREPARED or not _is_free(row, self._judged_at(now)):
                return None
            fence = _next_fence(connection, row)
            claim = Claim(pipeline, key, fence, row.attempt + 1, holder, State.PREPARED, place)
            values = {**_lease_of(claim, run_id, now), "attempt": row.attempt}
            change_shards(connection, pipeline, shards.c.key == key, values, now)
            return claim

    @repeatable
    def check_place(self, pipeline: str, place: Place | None) -> None:
        """Raise ClaimLost where the pipeline is not at `place` any more."""
        with self._database.read() as connection:
            demand_place(connection, pipeline, place)

    def begin_commit(self, claim: Claim) -> bool:
        """→ COLLECTING: the commit marker may be put. False: the claim is lost, put nothing."""
        return self._change(claim, {"state": State.COLLECTING}, None)

    @repeatable
    def finish(
        self,
        claim: Claim,
        *,
        fingerprint: str,
        embedded: int,
        rejected: int,
        failed: int,
        tokens: int | None,
    ) -> bool:
        """→ COLLECTED, the lease given back. False: the claim is lost.

        True also where this very commit is known already: told twice, or adopted from its marker.
        """
        values = {
            "state": State.COLLECTED, "fingerprint": fingerprint, "embedded": embedded,
            "rejected": rejected, "failed": failed, "tokens": tokens, "error": None,
            "collections": 0, "commit_fence": claim.fence, "keep_fence": None, **NOBODY,
        }  # fmt: skip
        counts = f"{embedded:,} embedded, {rejected:,} rejected, {failed:,} failed"
        if self._change(claim, values, Told(Event.COLLECTED, counts)):
            return True
        with self._database.read() as connection:
            known = sa.select(shards.c.key).where(
                shards.c.pipeline == claim.pipeline,
                shards.c.key == claim.shard,
                shards.c.fence == claim.fence,
                shards.c.state == State.COLLECTED,
                shards.c.fingerprint == fingerprint,
            )
            return connection.execute(known).one_or_none() is not None

    @repeatable
    def fail(
        self, claim: Claim, error: str, max_attempts: int, cause: Cause = Cause.FAILED, lost: int = 0
    ) -> State:
        """What the claim was for failed: back to where the shard was, or EXHAUSTED; where it ended.

        What becomes of it is decided in `retry_policy.py`: a READY shard has `max_attempts`; one that was prepared,
        or is to be collected, is tried as often too, and costs no attempt. `lost` machines were forgiven before.
        A lost claim changes nothing; the state is then another's doing. ClaimLost where the ledger
        has forgotten the shard.
        """
        with self._database.write() as connection:
            now = self._clock()
            row = _row(connection, claim.pipeline, claim.shard)
            if row is not None and connection.scalar(_held(claim)) is not None:
                computes = claim.before is State.READY
                if computes or cause in (Cause.SOURCE, Cause.SPENT):
                    decided = after_failure(claim.attempt, max_attempts, cause, lost)
                else:
                    decided = after_collection(row.collections, max_attempts)
                back = _back(claim, now + decided.pause) if decided.again else {"state": State.EXHAUSTED}
                values = {"error": kept_text(error, _ERROR_CHARACTERS), **NOBODY, **back}
                if not computes:
                    values["collections"] = row.collections + 1
                taken_back = computes and not decided.counts
                if taken_back:
                    values["attempt"] = row.attempt - 1
                event = Event.LOST if cause is Cause.MACHINE_LOST else Event.FAILED
                told = Told(event, error.removeprefix(f"shard {claim.shard}: "), decided.reason, taken_back)
                change_shards(connection, claim.pipeline, shards.c.key == claim.shard, values, now, told)
                return State(values["state"])
        if row is None:
            raise ClaimLost(f"shard {claim.shard} of {claim.pipeline}: the ledger does not know it any more")
        return State(row.state)

    def release(self, claim: Claim, reason: str = "") -> bool:
        """Give the shard back as it was, an attempt that was counted with it. False: the claim is lost."""
        return self._give_back(claim, self._clock(), Event.RELEASED, reason)

    def postpone(self, claim: Claim, until: float, reason: str = "") -> bool:
        """As `release`, and the shard is not to be collected before `until` (unix seconds)."""
        return self._give_back(claim, until, Event.POSTPONED, reason)

    def _give_back(self, claim: Claim, after: float, event: Event, reason: str) -> bool:
        values, computes = {**NOBODY, **_back(claim, after)}, claim.before is State.READY
        if computes:
            values["attempt"] = shards.c.attempt - 1
        told = Told(event, reason, "costs no attempt; tried again", taken_back=computes, unless_repeated=True)
        return self._change(claim, values, told, (*HELD, State.PREPARED))

    @repeatable
    def _change(
        self, claim: Claim, values: dict[str, Any], told: Told | None, frm: tuple[State, ...] = HELD
    ) -> bool:
        with self._database.write() as connection:
            condition = sa.and_(held_by(claim), shards.c.state.in_(frm))
            return bool(change_shards(connection, claim.pipeline, condition, values, self._clock(), told))


def held_by(claim: Claim) -> sa.ColumnElement[bool]:
    """Whether the shard is the claim's; without its pipeline, which `change_shards` adds."""
    return sa.and_(
        shards.c.key == claim.shard,
        shards.c.fence == claim.fence,
        shards.c.holder == claim.holder.encode(),
        still_at(claim.pipeline, claim.place),
    )


def _held(claim: Claim) -> sa.Select[tuple[str]]:
    return sa.select(shards.c.key).where(shards.c.pipeline == claim.pipeline, held_by(claim))


def _row(connection: sa.Connection, pipeline: str, key: str) -> Any:
    one = sa.select(shards).where(shards.c.pipeline == pipeline, shards.c.key == key)
    return connection.execute(one).one_or_none()


def _is_free(row: Any, now: float) -> bool:
    return not row.superseded and is_void(row.holder, row.lease_until, now)


def _claimable(connection: sa.Connection, row: Any, now: float) -> State | None:
    """Where the shard goes when this claim on it is given back; None: it is not to be had."""
    if not _is_free(row, now):
        return None
    if row.state in HELD and row.holder is not None:
        return State(row.before or State.READY)
    if row.state == State.STOPPED:
        ended = sa.select(jobs.c.submission).join(submissions, submissions.c.token == jobs.c.submission)
        job = (jobs.c.pipeline == row.pipeline, jobs.c.shard == row.key, jobs.c.fence == row.job)
        found = connection.scalar(ended.where(*job, submissions.c.state.in_(ENDED_SUBMISSION)))
        return State.STOPPED if found is not None else None
    return State(row.state) if row.state in (State.READY, *ENDED) else None


def _begun(row: Any, computes: bool) -> Told | None:
    """What the story says of a claim: an attempt, or that somebody is gone who had the shard."""
    gone = f"taken over from {Holder.decode(row.holder)}, which is gone" if row.holder is not None else ""
    if computes:
        return Told(Event.BEGAN, gone)
    return Told(Event.RELEASED, gone, "collected by another process, at no attempt") if gone else None


def _next_fence(connection: sa.Connection, row: Any) -> int:
    epoch = connection.scalar(sa.select(pipelines.c.epoch).where(pipelines.c.name == row.pipeline)) or 1
    # Above what was there, and in this ledger's own range: no other one writes files of that name.
    return max(row.fence, (epoch - 1) * FENCES_PER_EPOCH) + 1


def _lease_of(claim: Claim, run_id: str | None, now: float) -> dict[str, Any]:
    return {
        "fence": claim.fence, "attempt": claim.attempt, "before": claim.before,
        "holder": claim.holder.encode(), "lease_until": now + LEASE_SECONDS, "run_id": run_id,
    }  # fmt: skip


def _back(claim: Claim, after: float) -> dict[str, Any]:
    """The values of a shard that is back where the claim found it, to be collected from `after` on."""
    if claim.before is State.PREPARED:
        return {"state": State.PREPARED}
    # One that is READY without a job is computed in place: nothing to be collected.
    due = sa.case((shards.c.job.is_not(None), after)) if claim.before is State.READY else after
    return {"state": claim.before, "collect_after": due}
