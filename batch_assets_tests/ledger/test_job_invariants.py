"""Jobs in whatever order: no slot passed, every claim given back as it was; and the invariants of jobs."""

from contextlib import AbstractContextManager
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from batch_assets.ledger import schema
from batch_assets.ledger.budget import Budget
from batch_assets.ledger.rows import Claim, JobRow, SubmissionClaim, SubmissionRules
from batch_assets.ledger.states import ENDED, ENDED_SUBMISSION, LIVE_SUBMISSION, State, SubmissionState
from batch_assets_tests.ledger.conftest import postgresql_database
from batch_assets_tests.ledger.helpers import ELSEWHERE, ME, SCOPE, adopts, dead_process, holds, named
from batch_assets_tests.ledger.job_invariants import BUDGET, KEYS, JobsInvariants

RULES = {"texts": SubmissionRules(budget=Budget(BUDGET), min_records=3, max_records=6)}
HOLDERS = st.sampled_from([ME, ELSEWHERE, dead_process()])

keys = st.sampled_from(KEYS)
some_keys = st.lists(keys, unique=True)
kinds = st.sampled_from(["batch", "batch", "on_demand"])
observable = st.sampled_from(sorted(set(SubmissionState) - {SubmissionState.REFUSED}))


class AnyOrderOfJobs(JobsInvariants):
    """Every verb for jobs at a service, and those that get in their way."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 1

    def some(self, data: st.DataObject, items: Any) -> Any:
        return data.draw(st.sampled_from(sorted(items, key=str))) if items else None

    def some_claim(self, data: st.DataObject) -> Claim | None:
        held = [claim for claim in self.claims if holds(self.ledger, claim)]
        late = data.draw(st.integers(0, 4)) == 0
        return self.some(data, self.claims if late else held)

    # On the way to the service

    @rule(key=keys, holder=HOLDERS, records=st.integers(1, 5), bound=st.integers(0, 20), kind=kinds)
    def queue(self, key: str, holder: Any, records: int, bound: int, kind: Any) -> None:
        self.queue_one(key, holder, records, bound, kind)

    def queue_one(self, key: str, holder: Any, records: int, bound: int, kind: Any) -> None:
        if claim := self.ledger.claim_preparation("texts", key, holder):
            assert claim.before is State.PREPARED
            assert self.ledger.enqueue(claim, kind, records, 50, bound / 10)
            assert not holds(self.ledger, claim)

    @rule(records=st.integers(1, 5))
    def queue_all(self, records: int) -> None:
        for key in KEYS:
            self.queue_one(key, ME, records, 5, "batch")

    @rule(key=keys, holder=HOLDERS)
    def begin_to_prepare(self, key: str, holder: Any) -> None:
        if claim := self.ledger.claim_preparation("texts", key, holder):
            self.claims.append(claim)

    @rule(foreign=st.integers(0, 2))
    def others_come_and_go(self, foreign: int) -> None:
        self.ledger.set_scope(SCOPE, foreign_jobs=foreign)

    @rule()
    def submit(self) -> None:
        before = self.ledger.submissions(states=LIVE_SUBMISSION)
        claim = self.ledger.claim_submission(SCOPE, RULES, named)
        if not isinstance(claim, SubmissionClaim):
            assert self.ledger.submissions(states=LIVE_SUBMISSION) == before
            return
        scope = self.ledger.scope(SCOPE)
        assert scope.slots is not None
        assert len(before) + 1 + scope.foreign_jobs <= scope.slots
        assert scope.paused_until <= self.clock.now
        assert 3 <= sum(job.records for job in claim.jobs) <= 6
        assert not self.ledger.stop_requested("texts")
        self.at_service[claim.token] = claim

    @rule(data=st.data(), state=st.sampled_from(sorted(ENDED_SUBMISSION)))
    def the_service_works(self, data: st.DataObject, state: SubmissionState) -> None:
        """Without it, few jobs would ever come to their end."""
        self.start_again()
        self.submit()
        self.observe_one(data, state)

    @rule(data=st.data(), pause=st.none() | st.just(50.0))
    def refuse(self, data: st.DataObject, pause: float | None) -> None:
        if token := self.some(data, self.at_service):
            before = {job.shard: self.row(job.shard) for job in self.at_service[token].jobs}
            if self.ledger.refused(token, "no", pause=pause):
                del self.at_service[token]
                for key, old in before.items():
                    if old.state is State.SUBMITTING and not old.superseded:
                        assert (self.row(key).state, self.row(key).attempt) == (State.QUEUED, old.attempt - 1)

    @rule(data=st.data(), state=observable)
    def observe(self, data: st.DataObject, state: SubmissionState) -> None:
        self.observe_one(data, state)

    def observe_one(self, data: st.DataObject, state: SubmissionState) -> None:
        if token := self.some(data, self.at_service):
            known = self.ledger.submission(token)
            assert known is not None
            moved = self.ledger.observe(token, state, service_id=f"arn:{token}")
            assert {self.row(key).state for key in moved} <= {State(state)}
            if state in ENDED_SUBMISSION:
                del self.at_service[token]

    @rule(data=st.data())
    def answer_late(self, data: st.DataObject) -> None:
        if token := self.some(data, self.ended):
            assert not self.ledger.submitted(token, "another")
            assert not self.ledger.refused(token, "late")
            for state in set(SubmissionState) - {SubmissionState.REFUSED}:
                assert self.ledger.observe(token, state, "late", 1.0) == []

    @rule(some=some_keys, prepare=st.booleans())
    def leave_the_queue(self, some: list[str], prepare: bool) -> None:
        queued = [row.key for row in self.ledger.shards("texts", keys=some, states=[State.QUEUED])]
        leave = self.ledger.prepare_again if prepare else self.ledger.call_one_by_one
        assert leave("texts", some) == queued
        for key in queued:
            row = self.row(key)
            if prepare:
                assert (row.state, row.job) == (State.PREPARED, None)
                continue
            assert row.state is State.READY and row.job is not None
            job = self.ledger.job("texts", key, row.job)
            assert job is not None and job.kind == "on_demand"

    # Collecting

    @rule(data=st.data(), holder=HOLDERS)
    def claim_finished(self, data: st.DataObject, holder: Any) -> None:
        if row := self.some(data, self.ledger.finished("texts", 10)):
            self.claim_one(row.key, holder)
            assert holds(self.ledger, self.claims[-1])

    @rule(key=keys, holder=HOLDERS)
    def claim(self, key: str, holder: Any) -> None:
        self.claim_one(key, holder)

    def claim_one(self, key: str, holder: Any) -> None:
        old = self.row(key)
        claim = self.ledger.claim("texts", key, holder)
        if claim is None:
            return
        assert claim.before == (old.state if old.holder is None else old.before)
        assert claim.before in {State.READY, *ENDED}
        ready = claim.before is State.READY
        new = self.row(key)
        assert new.state == (State.RUNNING if ready else State.COLLECTING)
        assert (new.attempt, new.attempt) == (old.attempt + ready, claim.attempt)
        self.claims.append(claim)

    @rule(data=st.data())
    def begin_commit(self, data: st.DataObject) -> None:
        if claim := self.some_claim(data):
            held = holds(self.ledger, claim) and claim.before is not State.PREPARED
            assert self.ledger.begin_commit(claim) is held

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        if claim := self.some_claim(data):
            self.ledger.finish(claim, fingerprint="f", embedded=4, rejected=1, failed=0, tokens=9)

    @rule(data=st.data(), later=st.none() | st.just(40.0))
    def give_back(self, data: st.DataObject, later: float | None) -> None:
        if claim := self.some_claim(data):
            held = holds(self.ledger, claim)
            before = self.row(claim.shard)
            until = self.clock.now + (later or 0.0)
            done = self.ledger.release(claim) if later is None else self.ledger.postpone(claim, until)
            assert done is held
            if held:
                after = self.row(claim.shard)
                given = claim.before is State.READY
                assert (after.state, after.attempt) == (claim.before, before.attempt - given)
                assert after.collect_after in (None, until)

    @rule(data=st.data(), attempts=st.integers(0, 3))
    def fail(self, data: st.DataObject, attempts: int) -> None:
        if claim := self.some_claim(data):
            held = holds(self.ledger, claim)
            before = self.row(claim.shard)
            ended = self.ledger.fail(claim, "no", attempts)
            if held:
                tried = before.attempt if claim.before is State.READY else before.collections + 1
                assert ended is (claim.before if tried < attempts else State.EXHAUSTED)
            else:
                assert self.row(claim.shard) == before

    @rule(data=st.data(), records=st.integers(1, 2), kind=kinds)
    def try_the_rest_again(self, data: st.DataObject, records: int, kind: Any) -> None:
        if claim := self.some_claim(data):
            held = holds(self.ledger, claim)
            assert self.ledger.enqueue(claim, kind, records, 10, 0.5) is held

    @rule(data=st.data(), share=st.sampled_from([0.0, 0.3, 1.0]))
    def settle(self, data: st.DataObject, share: float) -> None:
        jobs = [job for job in self.table(schema.jobs) if job.held_usd is not None]
        jobs = [job for job in jobs if job.submission not in self.at_service]
        if job := self.some(data, jobs):
            assert self.ledger.settle("texts", job.shard, job.fence, job.bound_usd * share)
            assert not self.ledger.settle("texts", job.shard, job.fence, 99.0)

    @rule(data=st.data())
    def reserve(self, data: st.DataObject) -> None:
        jobs = [job for job in self.table(schema.jobs) if job.kind == "on_demand"]
        if job := self.some(data, jobs):
            self.ledger.reserve("texts", job.shard, job.fence, Budget(BUDGET))

    # What people and crashes do

    @rule()
    def stop(self) -> None:
        self.ledger.stop("texts")

    @rule()
    def start_again(self) -> None:
        self.ledger.clear_stop("texts")
        self.ledger.start_again("texts")

    @rule(some=st.none() | some_keys)
    def retry(self, some: list[str] | None) -> None:
        self.ledger.retry("texts", some)

    @rule(some=some_keys, keep=st.booleans())
    def recompute(self, some: list[str], keep: bool) -> None:
        for key in self.ledger.recompute("texts", some, keep=keep):
            row = self.row(key)
            assert (row.state, row.job, row.keep_fence is not None) == (State.PREPARED, None, keep)

    @rule(key=keys, number=st.integers(0, 5))
    def supersede(self, key: str, number: int) -> None:
        if number != 5:  # for good: not too often
            return
        self.ledger.add_shards("texts", 1, [], superseded=[key])

    @rule(key=keys, fence=st.integers(1, 9))
    def find_a_marker(self, key: str, fence: int) -> None:
        fence += (self.epoch - 1) * schema.FENCES_PER_EPOCH
        adopts(self.ledger, key, fence=fence)

    @rule(seconds=st.sampled_from([5, 61]))
    def time_passes(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule()
    def lose_the_ledger(self) -> None:
        """Plans and jobs are forgotten; then the service is asked what it has."""
        self.epoch += 1
        self.ledger.attach("texts", "/out", self.epoch)
        self.ended.clear()
        self.plan()
        for claim in self.at_service.values():
            bare = [
                JobRow(job.pipeline, job.shard, job.fence, job.kind, job.records, job.bytes, job.bound_usd)
                for job in claim.jobs
            ]
            for _ in range(2):
                moved = self.ledger.adopt_submission(
                    claim.token, claim.name, SCOPE, f"arn:{claim.token}", bare
                )
            assert moved == []

    @rule(key=keys)
    def find_request_files(self, key: str) -> None:
        fence = self.row(key).fence + 1
        assert not self.ledger.restore_queued("texts", key, 0, "batch", 3, 30, 0.5) or self.row(key).job == 0
        if self.ledger.restore_queued("texts", key, fence, "batch", 3, 30, 0.5):
            assert (self.row(key).state, self.row(key).fence) == (State.QUEUED, fence)


AnyOrderOfJobs.TestCase.settings = settings(
    max_examples=15, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnyOrderOfJobs = AnyOrderOfJobs.TestCase
TestAnyOrderOfJobs.pytestmark = [pytest.mark.timeout(1800)]  # making a failure small takes minutes


def test_on_postgresql(postgresql_server: str, postgresql_template: str) -> None:
    """Every verb speaks that database's SQL too."""

    class OnPostgreSQL(AnyOrderOfJobs):
        def database(self) -> AbstractContextManager[str]:
            return postgresql_database(postgresql_server, postgresql_template)

    few = settings(
        max_examples=4, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(OnPostgreSQL, settings=few)
