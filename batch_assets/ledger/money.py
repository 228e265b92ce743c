"""Dollars: bounds reserved before anything is paid for, costs settled once, budgets never passed.

Prices belong to the executors; when a cost is known, to `control/`; whether a job fits, to `budget.py`.
"""

from typing import Any

import sqlalchemy as sa

from batch_assets.ledger.budget import Budget, rounded_usd
from batch_assets.ledger.rows import Claim, Money
from batch_assets.ledger.schema import breakers, jobs, pipelines
from batch_assets.ledger.states import BreakerState
from batch_assets.ledger.store import Store, repeatable

_FAILING = (
    sa.select(breakers.c.message)
    .where(breakers.c.pipeline == pipelines.c.name, breakers.c.state == BreakerState.OPEN)
    .correlate(pipelines)
    .scalar_subquery()
)
# An open breaker is the gravest reason: what stands beside it shows once that is mended.
WHY_BLOCKED: dict[str, sa.ColumnElement[Any]] = {
    "blocked": sa.func.coalesce(_FAILING, pipelines.c.blocked).label("blocked"),
    "blocked_kind": sa.case((_FAILING.is_not(None), "failing"), else_=pipelines.c.blocked_kind).label(
        "blocked_kind"
    ),
}


class Accounts(Store):
    """The part of the Ledger that counts dollars."""

    @repeatable
    def settle(self, pipeline: str, shard: str, fence: int, cost_usd: float) -> bool:
        """Note what a job has cost, and give back what was reserved for it; once: False if it was noted before."""
        job = (jobs.c.pipeline == pipeline, jobs.c.shard == shard, jobs.c.fence == fence)
        with self._database.write() as connection:
            row = connection.execute(sa.select(jobs).where(*job)).one_or_none()
            if row is None or row.cost_usd is not None:
                return False
            cost = rounded_usd(cost_usd)
            connection.execute(sa.update(jobs).where(*job).values(cost_usd=cost, held_usd=None))
            add_money(connection, pipeline, held=-(row.held_usd or 0.0), spent=cost)
            return True

    @repeatable
    def reserve(self, pipeline: str, shard: str, fence: int, budget: Budget) -> str | None:
        """Reserve an on-demand job's bound, once; why not, and the pipeline blocked, if it does not fit.

        None also for a job that is settled. LookupError for an unknown job.
        """
        job = (jobs.c.pipeline == pipeline, jobs.c.shard == shard, jobs.c.fence == fence)
        with self._database.write() as connection:
            row = connection.execute(sa.select(jobs).where(*job)).one_or_none()
            if row is None:
                raise LookupError(f"shard {shard} of {pipeline}: the ledger knows no job {fence}")
            if row.held_usd is not None or row.cost_usd is not None:
                return None
            if reason := check_budget(connection, pipeline, row.bound_usd, budget):
                return reason
            connection.execute(sa.update(jobs).where(*job).values(held_usd=row.bound_usd))
            add_money(connection, pipeline, held=row.bound_usd)
            return None

    @repeatable
    def reserve_run(self, claim: Claim, records: int, bound_usd: float, budget: Budget) -> str | None:
        """Reserve what a run of the claimed shard costs at most; why not, and the pipeline blocked, if it does not fit.

        What an earlier run of it had reserved and never settled counts as spent: it was killed, and nobody knows how
        much of it was paid for.
        """
        shard = (jobs.c.pipeline == claim.pipeline, jobs.c.shard == claim.shard)
        with self._database.write() as connection:
            for killed in connection.execute(
                sa.select(jobs).where(*shard, jobs.c.fence < claim.fence, jobs.c.held_usd.is_not(None))
            ).all():
                row = (*shard, jobs.c.fence == killed.fence)
                connection.execute(
                    sa.update(jobs).where(*row).values(cost_usd=killed.held_usd, held_usd=None)
                )
                add_money(connection, claim.pipeline, held=-killed.held_usd, spent=killed.held_usd)
            bound = rounded_usd(bound_usd)
            if reason := check_budget(connection, claim.pipeline, bound, budget):
                return reason
            connection.execute(
                sa.insert(jobs).values(
                    pipeline=claim.pipeline, shard=claim.shard, fence=claim.fence, kind="on_demand", records=records,
                    bytes=0, bound_usd=bound, held_usd=bound, queued_at=self._clock(), digest="",
                )
            )  # fmt: skip
            add_money(connection, claim.pipeline, held=bound)
            return None

    @repeatable
    def set_spent(self, pipeline: str, usd: float) -> None:
        """After a lost ledger: what the pipeline has spent, as its commit markers tell."""
        with self._database.write() as connection:
            named = sa.update(pipelines).where(pipelines.c.name == pipeline)
            connection.execute(named.values(spent_usd=rounded_usd(usd)))

    @repeatable
    def money(self, pipeline: str) -> Money:
        """What is held and spent, and why nothing more is submitted. LookupError for an unknown pipeline."""
        with self._database.read() as connection:
            return _money(connection, pipeline)

    @repeatable
    def block(self, pipeline: str, text: str) -> None:
        """Let nothing more be submitted until a person has said that what `text` tells is mended."""
        with self._database.write() as connection:
            set_blocked(connection, pipeline, text, "output")

    @repeatable
    def clear_blocked(self, pipeline: str, *, output: bool = True) -> None:
        """Forget why nothing was submitted: a person has mended it, or says to try again.

        Without `output`, what was blocked by `block` stays so; what a breaker holds back, in any case.
        """
        named = pipelines.c.name == pipeline
        chosen = named if output else sa.and_(named, pipelines.c.blocked_kind != "output")
        with self._database.write() as connection:
            connection.execute(sa.update(pipelines).where(chosen).values(blocked=None, blocked_kind=None))


def add_money(connection: sa.Connection, pipeline: str, held: float = 0.0, spent: float = 0.0) -> None:
    """Add to what the pipeline holds and has spent. Writers wait for each other, so reading first is safe."""
    money = _money(connection, pipeline)
    connection.execute(
        sa.update(pipelines)
        .where(pipelines.c.name == pipeline)
        .values(held_usd=rounded_usd(money.held_usd + held), spent_usd=rounded_usd(money.spent_usd + spent))
    )


def check_budget(connection: sa.Connection, pipeline: str, bound_usd: float, budget: Budget) -> str | None:
    """None if `bound_usd` more fits the budget; else why not, and the pipeline is blocked for that.

    A pipeline that was blocked by its budget is so no longer when something fits.
    """
    money = _money(connection, pipeline)
    text = budget.refusal(spent=money.spent_usd, held=money.held_usd, bound=bound_usd)
    if text is None:
        if money.blocked_kind == "budget":
            set_blocked(connection, pipeline, None, None)
        return None
    # A refusal is the graver reason: it stays until a person has seen it.
    if money.blocked != text and money.refused is None:
        set_blocked(connection, pipeline, text, "budget")
    return text


def set_blocked(connection: sa.Connection, pipeline: str, text: str | None, kind: str | None) -> None:
    """Say why nothing more is submitted; None: nothing stands in the way."""
    named = sa.update(pipelines).where(pipelines.c.name == pipeline)
    connection.execute(named.values(blocked=text, blocked_kind=kind))


def _money(connection: sa.Connection, pipeline: str) -> Money:
    columns = [
        WHY_BLOCKED[name] if name in WHY_BLOCKED else pipelines.c[name] for name in Money.__dataclass_fields__
    ]
    row = connection.execute(sa.select(*columns).where(pipelines.c.name == pipeline)).mappings().one_or_none()
    if row is None:
        raise LookupError(f"pipeline {pipeline!r} is not attached to this ledger")
    return Money(**row)
