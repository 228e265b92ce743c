"""Which queued job is next for a free slot: by priority, then first in first out, as budgets allow.

Read by an index over what is queued: the cost does not depend on how much that is. What is
done with the choice is in `submissions.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import sqlalchemy as sa

from batch_assets.ledger.money import check_budget
from batch_assets.ledger.rows import JobRow, SubmissionRules, Waiting
from batch_assets.ledger.schema import breakers, jobs, pipelines, shards, submissions, tallies
from batch_assets.ledger.states import AT_SERVICE, ENDED, LIVE_SUBMISSION, BreakerState, State
from batch_assets.ledger.store import batches

GATHERED_AT_MOST = 10
_NOT_JUDGED = (AT_SERVICE | ENDED | {State.COLLECTING}) - {State.STOPPED}
_JOB_COLUMNS = tuple(jobs.c[name] for name in JobRow.__dataclass_fields__)


def choose_jobs(
    connection: sa.Connection, rules: Mapping[str, SubmissionRules], now: float
) -> list[JobRow] | Waiting:
    """The jobs of the next submission, all of one pipeline; or why there is none.

    Pipelines that are to stop, or that the service refused, are passed over; so are those whose breaker
    is open. While one is probing, as few jobs are taken as one submission needs, and none before all earlier ones are
    judged. One whose next job does not fit its budget is blocked for that.
    """
    rules, waiting = _heeding_breakers(
        connection, {name: rules[name] for name in _startable(connection, rules)}
    )
    blocked: list[str] = []
    by_priority = sorted(rules, key=lambda name: -rules[name].priority)
    for _, names in groupby(by_priority, key=lambda name: rules[name].priority):
        choices: list[list[JobRow]] = []
        for name in names:
            choice = _next_of(connection, name, rules[name], now)
            if isinstance(choice, Waiting):
                waiting = choice
            elif choice:
                choices.append(choice)
        for choice in sorted(choices, key=lambda some: (some[0].queued_at, some[0].pipeline)):
            name = choice[0].pipeline
            bound = sum(job.bound_usd for job in choice)
            reason = check_budget(connection, name, bound, rules[name].budget)
            if reason is None:
                return choice
            blocked.append(f"pipeline {name}: {reason}")
    if blocked:
        return Waiting("budget", message="; ".join(blocked))
    return waiting or Waiting("empty")


def read_jobs(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> list[JobRow]:
    """The jobs that meet `condition`, by shard and fence."""
    query = sa.select(*_JOB_COLUMNS).where(condition).order_by(jobs.c.shard, jobs.c.fence)
    return [JobRow(**row) for row in connection.execute(query).mappings()]


def _startable(connection: sa.Connection, rules: Mapping[str, SubmissionRules]) -> list[str]:
    refused = sa.func.coalesce(pipelines.c.blocked_kind, "").in_(("refused", "output"))
    query = sa.select(pipelines.c.name).where(
        pipelines.c.name.in_(list(rules)), pipelines.c.stop_requested == sa.false(), ~refused
    )
    return sorted(connection.scalars(query))


def _heeding_breakers(
    connection: sa.Connection, rules: Mapping[str, SubmissionRules]
) -> tuple[dict[str, SubmissionRules], Waiting | None]:
    """The pipelines of which something may be submitted, and why another has to wait."""
    query = sa.select(breakers.c.pipeline, breakers.c.state).where(breakers.c.pipeline.in_(list(rules)))
    states = {name: BreakerState(state) for name, state in connection.execute(query)}
    found, waiting = dict(rules), None
    for name, state in states.items():
        if state is BreakerState.COUNTING:
            continue
        probes = state is BreakerState.PROBING
        if probes and not _any_not_judged(connection, name):
            found[name] = replace(rules[name], together=1)
            continue
        del found[name]
        if probes:
            text = f"{name}: jobs failed as a whole; how those end that are under way decides whether others follow"
            waiting = Waiting("probing", message=text)
    return found, waiting


def _any_not_judged(connection: sa.Connection, pipeline: str) -> bool:
    """Whether the pipeline has a job at the service, or one of which nobody has looked at what came of it."""
    named = (tallies.c.pipeline == pipeline, tallies.c.state.in_(_NOT_JUDGED), tallies.c.shards > 0)
    return connection.scalar(sa.select(tallies.c.state).where(*named).limit(1)) is not None


def _next_of(
    connection: sa.Connection, pipeline: str, rules: SubmissionRules, now: float
) -> list[JobRow] | Waiting:
    """The pipeline's next jobs, oldest first; empty: nothing is queued."""
    if rules.together > 1:
        return _array(connection, pipeline, rules, now)
    head = _queued(connection, pipeline, sa.true(), (shards.c.queued_at, shards.c.key), 1)
    if not head:
        return []
    if head[0].records >= rules.min_records:
        return head
    if pool := _pool(connection, head[0], rules):
        return pool
    # Few are passed on the way: more small ones than that would have made a pool.
    enough = shards.c.queued_records >= rules.min_records
    if found := _queued(connection, pipeline, enough, (shards.c.queued_at, shards.c.key), 1):
        return found
    return Waiting("pool", message="fewer records are queued than the service takes in one job")


def _array(
    connection: sa.Connection, pipeline: str, rules: SubmissionRules, now: float
) -> list[JobRow] | Waiting:
    """As many of the oldest jobs as one submission takes, and as may be alive."""
    room = rules.together
    if rules.alive is not None:
        room = min(room, rules.alive - _alive(connection, pipeline))
    if room <= 0:
        return Waiting("full", message=f"{rules.alive} jobs of {pipeline} are alive, as many as may be")
    found = _queued(connection, pipeline, sa.true(), (shards.c.queued_at, shards.c.key), room)
    if len(found) == room or not found:
        return found
    quiet, longest = now - found[-1].queued_at, now - found[0].queued_at
    if quiet < rules.gather_seconds and longest < GATHERED_AT_MOST * rules.gather_seconds:
        return Waiting("gathering")
    return found


def _alive(connection: sa.Connection, pipeline: str) -> int:
    """The pipeline's jobs that a service has and that have not ended."""
    query = (
        sa.select(sa.func.count())
        .select_from(jobs)
        .join(submissions, submissions.c.token == jobs.c.submission)
        .where(
            submissions.c.pipeline == pipeline,
            submissions.c.state.in_(LIVE_SUBMISSION),
            jobs.c.state.is_(None),
        )
    )
    return connection.scalar(query) or 0


def _pool(connection: sa.Connection, head: JobRow, rules: SubmissionRules) -> list[JobRow]:
    """The oldest small job with as many others as it takes; empty where they are too few.

    The others are the smallest ones: they come in an index's order, and every pool takes the
    oldest along, so that none waits for ever.
    """
    small = sa.and_(
        shards.c.queued_records.is_not(None),
        shards.c.queued_records < rules.min_records,
        shards.c.key != head.shard,
    )
    order = (shards.c.queued_records, shards.c.queued_at, shards.c.key)
    pool, records = [head], head.records
    for job in _queued(connection, head.pipeline, small, order, rules.min_records):
        if rules.max_records is not None and records + job.records > rules.max_records:
            break
        pool.append(job)
        records += job.records
        if records >= rules.min_records:
            return sorted(pool, key=lambda one: (one.queued_at, one.shard))
    return []


def _queued(
    connection: sa.Connection,
    pipeline: str,
    condition: sa.ColumnElement[bool],
    order: tuple[sa.ColumnElement[object], ...],
    limit: int,
) -> list[JobRow]:
    """Jobs of shards in the queue, in this order; those with another job alive at the service wait."""
    query = (
        sa.select(shards.c.key, shards.c.job)
        .where(shards.c.pipeline == pipeline, shards.c.queued_at.is_not(None), condition)
        .order_by(*order)
    )
    found: list[JobRow] = []
    passed = 0
    # A second step, not a join: a plan that joins first would read all that is queued.
    while len(found) < limit:
        page = [(key, fence) for key, fence in connection.execute(query.offset(passed).limit(limit))]
        alive, waiting = _jobs_of_shards(connection, pipeline, [key for key, _ in page])
        found += [waiting[one] for one in page if one[0] not in alive]
        passed += len(page)
        if len(page) < limit:
            break
    return found[:limit]


def _jobs_of_shards(
    connection: sa.Connection, pipeline: str, keys: Sequence[str]
) -> tuple[set[str], dict[tuple[str, int], JobRow]]:
    """The shards that have a job alive at the service, and all jobs of these shards by (shard, fence)."""
    alive: set[str] = set()
    known: dict[tuple[str, int], JobRow] = {}
    for some in batches(keys):
        rows = read_jobs(connection, sa.and_(jobs.c.pipeline == pipeline, jobs.c.shard.in_(some)))
        known |= {(job.shard, job.fence): job for job in rows}
        live: set[str] = set()
        for tokens in batches(sorted({job.submission for job in rows if job.submission is not None})):
            named = (submissions.c.token.in_(tokens), submissions.c.state.in_(LIVE_SUBMISSION))
            live.update(connection.scalars(sa.select(submissions.c.token).where(*named)))
        alive |= {job.shard for job in rows if job.submission in live and job.state is None}
    return alive, known
