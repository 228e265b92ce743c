"""What is always true of jobs: one alive a shard, no budget passed, the books equal a recount."""

from collections import Counter
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis.stateful import RuleBasedStateMachine, invariant

from batch_assets.ledger import schema
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import Claim, SubmissionClaim, SubmissionRow
from batch_assets.ledger.states import ENDED, ENDED_SUBMISSION, LIVE_SUBMISSION, State
from batch_assets_tests.ledger.conftest import Clock, sqlite_database
from batch_assets_tests.ledger.helpers import SCOPE

KEYS = [f"g0001-{ordinal:05d}" for ordinal in range(4)]
BUDGET = 2.0


class JobsInvariants(RuleBasedStateMachine):
    """A ledger with one deferred pipeline, and what is true of it between any two verbs."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        with ExitStack() as stack:
            self.ledger = Ledger.open(stack.enter_context(self.database()), clock=self.clock)
            stack.callback(self.ledger.dispose)
            self.resources = stack.pop_all()
        self.claims: list[Claim] = []
        self.at_service: dict[str, SubmissionClaim] = {}  # what would run on if the ledger were lost
        self.ended: dict[str, SubmissionRow] = {}
        self.ledger.attach("texts", "/out", 1)
        self.ledger.set_deferred("texts", True)
        self.ledger.set_scope(SCOPE, slots=3)
        self.plan()

    def teardown(self) -> None:
        self.resources.close()

    def database(self) -> AbstractContextManager[str]:
        """The URL of an empty database, for as long as the block lasts."""
        return sqlite_database()

    def plan(self) -> None:
        self.ledger.add_shards("texts", 1, [(key, ordinal, 5, 100) for ordinal, key in enumerate(KEYS)])
        self.ledger.move("texts", KEYS, [State.PLANNED], State.PREPARED)

    def row(self, key: str) -> Any:
        row = self.ledger.shard("texts", key)
        assert row is not None
        return row

    def table(self, table: sa.Table) -> list[Any]:
        with self.ledger._database.read() as connection:
            return list(connection.execute(sa.select(table)))

    @invariant()
    def one_job_alive_a_shard(self) -> None:
        alive = {row.token for row in self.ledger.submissions(states=LIVE_SUBMISSION)}
        assert alive == set(self.at_service)
        carried = Counter(job.shard for job in self.table(schema.jobs) if job.submission in alive)
        assert all(number == 1 for number in carried.values())

    @invariant()
    def the_books_equal_a_recount(self) -> None:
        money = self.ledger.money("texts")
        jobs = self.table(schema.jobs)
        held = [job for job in jobs if job.held_usd is not None]
        assert money.held_usd == pytest.approx(sum(job.bound_usd for job in held), abs=1e-12)
        assert money.spent_usd == pytest.approx(sum(job.cost_usd or 0.0 for job in jobs), abs=1e-12)
        assert money.held_usd + money.spent_usd <= BUDGET + 1e-12
        for job in jobs:
            if job.kind == "batch":
                assert (job.held_usd is not None) == (job.submission is not None and job.cost_usd is None)
        for job in self.ledger.unsettled("texts"):
            row = self.row(job.shard)
            assert job.submission not in self.at_service
            assert row.superseded or row.job != job.fence or row.state is State.COLLECTED

    @invariant()
    def what_has_ended_never_changes(self) -> None:
        for row in self.ledger.submissions(states=ENDED_SUBMISSION):
            assert self.ended.setdefault(row.token, row) == row

    @invariant()
    def shards_stand_where_their_jobs_do(self) -> None:
        submissions = {row.token: row for row in self.table(schema.submissions)}
        jobs = {(job.shard, job.fence): job for job in self.table(schema.jobs)}
        for row in self.table(schema.shards):
            job = jobs.get((row.key, row.job))
            submission = submissions.get(job.submission) if job is not None else None
            if row.superseded:
                assert (row.queued_at, row.collect_after, row.holder) == (None, None, None)
                continue
            assert (row.state == State.QUEUED) == (row.queued_at is not None)
            assert (row.before is None) == (row.holder is None)
            if row.state == State.QUEUED:
                assert job is not None
                assert (row.queued_at, row.queued_records) == (job.queued_at, job.records)
                assert submission is None
            if row.state in (State.SUBMITTING, State.SUBMITTED) or (
                row.state == State.RUNNING and row.holder is None
            ):
                assert submission is not None
                assert submission.state == row.state
            stopped_there = submission is not None and submission.state == row.state
            to_collect = row.holder is None and (
                (row.state in ENDED and (row.state != State.STOPPED or stopped_there))
                or row.state == State.READY
            )
            assert (row.collect_after is not None) == to_collect

    @invariant()
    def what_is_finished_is_what_a_claim_may_have(self) -> None:
        now, stopped = self.clock.now, self.ledger.stop_requested("texts")
        due = {
            row.key
            for row in self.table(schema.shards)
            if row.collect_after is not None
            and row.collect_after <= now
            and not (stopped and row.state == State.STOPPED)
        }
        found = {row.key for row in self.ledger.finished("texts", 10)}
        void = {
            row.key for row in self.ledger.shards("texts") if row.holder and row.before is not State.PREPARED
        }
        assert due <= found <= due | void
        assert len(self.ledger.finished("texts", 1)) == min(len(found), 1)

    @invariant()
    def tallies_equal_a_recount(self) -> None:
        rows = self.ledger.shards("texts")
        assert self.ledger.counts("texts") == Counter(row.state for row in rows)
        assert self.ledger.totals("texts").embedded == sum(row.embedded for row in rows)
        assert all(row.attempt >= 0 for row in rows)
