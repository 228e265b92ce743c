"""Submissions: a slot taken before the service is called, and what the service then says.

A row is written before the call, so that a crash at any instruction leaves a trace to look for.
Which jobs come next is in `choosing.py`; how a job gets into the queue, in `queue.py`; what is
found at a service that the ledger does not know, in `recovery.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from batch_assets.ledger.budget import rounded_usd
from batch_assets.ledger.changing import change_shards
from batch_assets.ledger.choosing import choose_jobs, read_jobs
from batch_assets.ledger.money import add_money, set_blocked
from batch_assets.ledger.places import demand_place
from batch_assets.ledger.rows import JobRow, SubmissionClaim, SubmissionRules, Waiting
from batch_assets.ledger.schema import jobs, shards, submissions
from batch_assets.ledger.scopes import pause_until, read_scope, write_scope
from batch_assets.ledger.states import (
    AT_SERVICE,
    ENDED_SUBMISSION,
    LIVE_SUBMISSION,
    State,
    SubmissionState,
)
from batch_assets.ledger.store import Store, batches, repeatable
from batch_assets.ledger.story import Event, Told

_ORDER = {SubmissionState.SUBMITTING: 0, SubmissionState.SUBMITTED: 1, SubmissionState.RUNNING: 2,
          **dict.fromkeys(ENDED_SUBMISSION, 3)}  # fmt: skip


_ENDS = {State.PARTIAL: "ended before all its records were processed", State.STOPPED: "was stopped"}


class Submissions(Store):
    """The part of the Ledger that gives slots to jobs, and follows them."""

    @repeatable
    def claim_submission(
        self,
        scope: str,
        rules: Mapping[str, SubmissionRules],
        make: Callable[[list[JobRow]], tuple[str, str]],
    ) -> SubmissionClaim | Waiting:
        """Take a free slot of `scope` for the next jobs of the pipelines in `rules`, or say why not.

        `make` gives the token and the name of a submission of these jobs, and does nothing else.
        An attempt is counted, and the jobs' bounds are reserved. LookupError where the scope's
        slots are not known yet; ValueError for a token that another submission has; ClaimLost
        where one of the pipelines is not at its place any more.
        """
        with self._database.write() as connection:
            for pipeline, rule in rules.items():
                demand_place(connection, pipeline, rule.place)
            now = self._clock()
            shared = read_scope(connection, scope)
            if shared.slots is None:
                raise LookupError(f"scope {scope!r} has no slots yet: say how many by set_scope")
            if shared.paused_until > now:
                return Waiting("paused", shared.paused_until)
            if _active(connection, scope) + shared.foreign_jobs >= shared.slots:
                return Waiting("full")
            chosen = choose_jobs(connection, rules, now)
            if isinstance(chosen, Waiting):
                return chosen
            token, name = make(chosen)
            known = read_submission(connection, token)
            if known is not None and known.state != SubmissionState.REFUSED:
                raise ValueError(f"token {token} is that of a submission that is {known.state}")
            pipeline = chosen[0].pipeline
            insert_submission(
                connection, token, name, scope, chosen, state=SubmissionState.SUBMITTING, claimed_at=now
            )
            bound = sum(job.bound_usd for job in chosen)
            add_money(connection, pipeline, held=bound)
            values = {"state": State.SUBMITTING, "attempt": shards.c.attempt + 1}
            taken = [bind_job(connection, job, token) for job in chosen]
            for keys in batches([job.shard for job in taken]):
                change_shards(connection, pipeline, shards.c.key.in_(keys), values, now)
            return SubmissionClaim(token, name, pipeline, scope, taken)

    @repeatable
    def rename_submission(self, token: str, other: str, name: str) -> bool:
        """Give a submission whose name is another job's the token `other` and another name, before the call by them.

        No attempt is counted by it. False where it is not being submitted, or that token is in use.
        """
        with self._database.write() as connection:
            row, known = read_submission(connection, token), read_submission(connection, other)
            if row is None or row.state != SubmissionState.SUBMITTING:
                return False
            if known is not None and known.state != SubmissionState.REFUSED:
                return False
            connection.execute(sa.delete(submissions).where(submissions.c.token == other))
            connection.execute(
                sa.update(submissions)
                .where(submissions.c.token == token)
                .values(token=other, name=name, claimed_at=self._clock())
            )
            connection.execute(sa.update(jobs).where(jobs.c.submission == token).values(submission=other))
            return True

    @repeatable
    def submitted(self, token: str, service_id: str) -> bool:
        """The service has taken it: → submitted. False for one that is unknown, refused, or known by another id."""
        self.observe(token, SubmissionState.SUBMITTED, service_id=service_id)
        with self._database.read() as connection:
            row = read_submission(connection, token)
        return row is not None and row.state != SubmissionState.REFUSED and row.service_id == service_id

    @repeatable
    def refused(
        self, token: str, message: str, *, pause: float | None = None, block: str | None = None
    ) -> bool:
        """Nothing exists at the service: → refused, the jobs back in the queue, their bounds given back.

        `pause` lets nothing more be submitted in the scope for so many seconds; `block` nothing
        of this pipeline, and says why. False where it was not being submitted.
        """
        with self._database.write() as connection:
            now = self._clock()
            row = read_submission(connection, token)
            if row is None or row.state != SubmissionState.SUBMITTING:
                return False
            carried = read_jobs(connection, jobs.c.submission == token)
            of_job = sa.select(jobs.c.queued_at).where(*_newest_job()).correlate(shards)
            values = {
                "state": State.QUEUED,
                "attempt": shards.c.attempt - 1,
                "queued_at": of_job.scalar_subquery(),
                "queued_records": of_job.with_only_columns(jobs.c.records).scalar_subquery(),
            }
            decision = "in the queue again, at no attempt"
            if block is not None:
                decision += "; nothing more of this pipeline is submitted until that is changed"
            elif pause is not None:
                decision += f"; nothing more is submitted for {pause:,.0f} s"
            told = Told(Event.REFUSED, message, decision, taken_back=True, unless_repeated=True)
            follow_submission(connection, row, carried, values, now, told)
            connection.execute(
                sa.update(jobs).where(jobs.c.submission == token).values(submission=None, held_usd=None)
            )
            add_money(connection, row.pipeline, held=-sum(job.held_usd or 0.0 for job in carried))
            update_submission(connection, token, state=SubmissionState.REFUSED, message=message, ended_at=now)
            if pause is not None:
                _pause(connection, row.scope, now + pause)
            if block is not None:
                set_blocked(connection, row.pipeline, block, "refused")
            return True

    @repeatable
    def observe(
        self,
        token: str,
        state: SubmissionState,
        message: str | None = None,
        ended_at: float | None = None,
        *,
        service_id: str | None = None,
    ) -> list[str]:
        """Note what the service says of a submission; the keys of the shards that moved with it.

        Never backwards: what is older than what is known, or said twice, changes nothing.
        `service_id` is set where it was not known: a submission found by its name.
        """
        state = SubmissionState(state)
        if state is SubmissionState.REFUSED:
            raise ValueError("a submission is refused by `refused`, which gives its jobs back")
        with self._database.read() as connection:
            if not _news(read_submission(connection, token), state, message, service_id):
                return []
        with self._database.write() as connection:
            now = self._clock()
            row = read_submission(connection, token)
            if not (values := _news(row, state, message, service_id)):
                return []
            if "state" in values:
                if row.submitted_at is None:
                    values["submitted_at"] = now
                if state in ENDED_SUBMISSION:
                    values["ended_at"] = now if ended_at is None else ended_at
                    write_scope(connection, row.scope, paused_until=0.0, rejections=0)
            update_submission(connection, token, **values)
            if "state" not in values:
                return []
            ended = {"collect_after": now} if state in ENDED_SUBMISSION else {}
            carried = read_jobs(connection, jobs.c.submission == token)
            told = None
            if state in ENDED_SUBMISSION:
                told = ended_job(State(state), message or row.message)
            elif row.submitted_at is None:
                told = Told(Event.SUBMITTED, f"as {row.name}")
            return follow_submission(connection, row, carried, {"state": State(state), **ended}, now, told)


def read_submission(connection: sa.Connection, token: str) -> Any:
    """The submission's row, or None."""
    return connection.execute(sa.select(submissions).where(submissions.c.token == token)).one_or_none()


def update_submission(connection: sa.Connection, token: str, **values: Any) -> None:
    """Set columns of a submission."""
    connection.execute(sa.update(submissions).where(submissions.c.token == token).values(**values))


def _active(connection: sa.Connection, scope: str) -> int:
    count = sa.select(sa.func.count()).where(
        submissions.c.scope == scope, submissions.c.state.in_(LIVE_SUBMISSION)
    )
    return connection.scalar(count) or 0


def insert_submission(
    connection: sa.Connection, token: str, name: str, scope: str, carried: Sequence[JobRow], **values: Any
) -> None:
    """Write a submission; one of this token that was refused is forgotten."""
    connection.execute(sa.delete(submissions).where(submissions.c.token == token))
    connection.execute(
        sa.insert(submissions).values(
            token=token, name=name, scope=scope, pipeline=carried[0].pipeline, jobs=len(carried),
            records=sum(job.records for job in carried),
            bound_usd=rounded_usd(sum(job.bound_usd for job in carried)), **values,
        )
    )  # fmt: skip


def bind_job(connection: sa.Connection, job: JobRow, token: str) -> JobRow:
    """Give a job to a submission, and reserve its bound."""
    connection.execute(
        sa.update(jobs).where(*is_job(job)).values(submission=token, held_usd=jobs.c.bound_usd)
    )
    return replace(job, submission=token, held_usd=job.bound_usd)


def is_job(job: JobRow) -> tuple[sa.ColumnElement[bool], ...]:
    """Whether a row of the jobs is this one's."""
    return (jobs.c.pipeline == job.pipeline, jobs.c.shard == job.shard, jobs.c.fence == job.fence)


def _newest_job() -> tuple[sa.ColumnElement[bool], ...]:
    return (jobs.c.pipeline == shards.c.pipeline, jobs.c.shard == shards.c.key, jobs.c.fence == shards.c.job)


def _news(row: Any, state: SubmissionState, message: str | None, service_id: str | None) -> dict[str, Any]:
    """What `observe` has to write; nothing where the submission is unknown, or has come to its end."""
    if row is None or row.state == SubmissionState.REFUSED or row.state in ENDED_SUBMISSION:
        return {}
    news: dict[str, Any] = {}
    if _ORDER[state] > _ORDER[SubmissionState(row.state)]:
        news["state"] = state
    if message is not None and message != row.message:
        news["message"] = message
    if service_id is not None and row.service_id is None:
        news["service_id"] = service_id
    return news


def ended_job(state: State, message: str | None = None) -> Told:
    """What the story says of a job that has ended at the service."""
    told = f"the job {_ENDS.get(state, state.value)}" + (f": {message}" if message else "")
    return Told(Event.ENDED, told, "what it left is collected")


def follow_submission(
    connection: sa.Connection,
    row: Any,
    carried: Sequence[JobRow],
    values: dict[str, Any],
    now: float,
    told: Told | None = None,
) -> list[str]:
    """Change the shards whose newest job the submission carries, where they stand at the service."""
    carries = sa.select(jobs.c.fence).where(*_newest_job(), jobs.c.submission == row.token).correlate(shards)
    there = sa.and_(
        shards.c.state.in_(AT_SERVICE),
        shards.c.holder.is_(None),
        shards.c.superseded == sa.false(),
        carries.exists(),
    )
    moved: list[str] = []
    for keys in batches([job.shard for job in carried]):
        of_some = sa.and_(shards.c.key.in_(keys), there)
        moved += change_shards(connection, row.pipeline, of_some, values, now, told)
    return moved


def _pause(connection: sa.Connection, scope: str, until: float) -> None:
    pause_until(connection, scope, until)
    write_scope(connection, scope, rejections=read_scope(connection, scope).rejections + 1)
