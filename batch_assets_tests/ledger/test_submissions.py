"""From the queue to the service: slots, order, pools, refusals, what is observed."""

import pytest

from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import JobRow, SubmissionRules, Waiting
from batch_assets.ledger.scopes import pause_until
from batch_assets.ledger.states import State, SubmissionState
from batch_assets_tests.ledger.conftest import Clock
from batch_assets_tests.ledger.helpers import (
    DONE,
    KEYS,
    ME,
    RULES,
    SCOPE,
    adopts,
    both_databases,
    named,
    queue,
    state,
    submit,
    take,
    waits,
)

pytestmark = both_databases

KEY = KEYS[0]
S = SubmissionState


def test_the_life_of_a_job(ledger: Ledger, clock: Clock) -> None:
    (prepared,) = queue(ledger, [KEY], bound_usd=2.5)
    assert (prepared.fence, prepared.attempt, prepared.before) == (1, 1, State.PREPARED)
    row = ledger.shard("texts", KEY)
    assert row is not None
    assert (row.state, row.job, row.holder, row.attempt) == (State.QUEUED, 1, None, 0)
    claim = take(ledger)
    assert (claim.pipeline, claim.scope) == ("texts", SCOPE)
    assert claim.jobs == [
        JobRow("texts", KEY, 1, "batch", 100, 5_000, 2.5, 2.5, None, claim.token, clock.now)
    ]
    assert ledger.jobs_of(claim.token) == claim.jobs
    assert ledger.job("texts", KEY, 1) == claim.jobs[0]
    assert ledger.money("texts").held_usd == 2.5
    clock.now += 10
    assert ledger.submitted(claim.token, "arn:1")
    assert ledger.submitted(claim.token, "arn:1"), "told twice"
    assert not ledger.submitted(claim.token, "arn:2")
    assert ledger.observe(claim.token, S.RUNNING) == [KEY]
    clock.now += 10
    assert ledger.observe(claim.token, S.SUCCEEDED, "fine", clock.now - 3) == [KEY]
    submission = ledger.submission_by_service_id("arn:1")
    assert submission is not None
    assert submission == ledger.submission(claim.token) == ledger.submission_by_name(claim.name)
    assert (submission.state, submission.message, submission.jobs) == (S.SUCCEEDED, "fine", 1)
    assert (submission.submitted_at, submission.ended_at) == (clock.now - 10, clock.now - 3)
    assert [row.key for row in ledger.finished("texts", 10)] == [KEY]
    collecting = ledger.claim("texts", KEY, ME)
    assert collecting is not None
    assert (collecting.fence, collecting.attempt, collecting.before) == (2, 1, State.SUCCEEDED)
    assert state(ledger) == State.COLLECTING
    assert ledger.finished("texts", 10) == []
    assert ledger.begin_commit(collecting)
    assert ledger.settle("texts", KEY, 1, 1.25)
    assert not ledger.settle("texts", KEY, 1, 9.0), "once per job"
    assert ledger.finish(collecting, **DONE)
    money = ledger.money("texts")
    assert (money.held_usd, money.spent_usd) == (0.0, 1.25)
    row = ledger.shard("texts", KEY)
    assert row is not None
    assert (row.state, row.before, row.collect_after, row.attempt) == (State.COLLECTED, None, None, 1)


def test_a_slot_is_taken_until_the_job_ends(ledger: Ledger) -> None:
    queue(ledger, KEYS)
    first = take(ledger, slots=3)
    ledger.set_scope(SCOPE, foreign_jobs=1, observed_at=5.0, oldest_active=2.0)
    take(ledger, slots=3)
    assert waits(ledger) == "full"
    ledger.set_scope(SCOPE, foreign_jobs=0)
    assert ledger.scope(SCOPE).oldest_active == 2.0
    third = take(ledger, slots=3)
    assert waits(ledger) == "full"
    ledger.submitted(first.token, "arn:1")
    ledger.observe(first.token, S.RUNNING)
    assert waits(ledger) == "full"
    ledger.observe(first.token, S.FAILED)
    take(ledger, slots=3)
    assert waits(ledger) == "full"
    ledger.refused(third.token, "no")
    assert take(ledger, slots=3).token == third.token, (
        "submitted again under the same token, in its old place"
    )
    assert [row.state for row in ledger.submissions(scope=SCOPE)].count(S.SUBMITTING) == 3
    assert [row.token for row in ledger.submissions(pipeline="texts", states=[S.FAILED])] == [first.token]
    assert len(ledger.submissions(limit=2)) == 2


def test_a_scope_without_slots_is_an_error(ledger: Ledger) -> None:
    with pytest.raises(LookupError, match=r"bedrock/.*set_scope"):
        ledger.claim_submission(SCOPE, RULES, named)


def test_first_in_first_out_and_the_higher_priority_before(ledger: Ledger, clock: Clock) -> None:
    ledger.attach("images", "/out", 1)
    ledger.add_shards("images", 1, [("g0001-00000", 0, 10, 10)])
    for key in reversed(KEYS):
        queue(ledger, [key])
        clock.now += 1
    queue(ledger, ["g0001-00000"], pipeline="images")
    rules = {"texts": SubmissionRules(), "images": SubmissionRules(priority=1), "unknown": SubmissionRules()}
    order = [take(ledger, rules).jobs[0] for _ in range(6)]
    assert [(job.pipeline, job.shard) for job in order] == [
        ("images", "g0001-00000"), *(("texts", key) for key in reversed(KEYS))
    ]  # fmt: skip
    assert waits(ledger, rules) == "empty"


def test_of_equal_priority_the_oldest_is_first(ledger: Ledger, clock: Clock) -> None:
    ledger.attach("images", "/out", 1)
    ledger.add_shards("images", 1, [(KEY, 0, 10, 10)])
    queue(ledger, KEYS[:1])
    clock.now += 1
    queue(ledger, [KEY], pipeline="images")
    clock.now += 1
    queue(ledger, KEYS[1:2])
    rules = {"texts": SubmissionRules(), "images": SubmissionRules()}
    assert [take(ledger, rules).pipeline for _ in range(3)] == ["texts", "images", "texts"]


def test_small_jobs_are_pooled(ledger: Ledger, clock: Clock) -> None:
    rules = {"texts": SubmissionRules(min_records=100, max_records=150)}
    queue(ledger, KEYS[:2], records=40)
    assert ledger.set_scope(SCOPE, slots=9) is None
    assert waits(ledger, rules) == "pool"
    clock.now += 1
    queue(ledger, KEYS[2:3], records=100)
    assert [job.shard for job in take(ledger, rules).jobs] == KEYS[2:3], "what needs no pool goes past"
    clock.now += 1
    queue(ledger, KEYS[3:], records=45)
    pool = take(ledger, rules)
    assert [job.shard for job in pool.jobs] == [KEYS[0], KEYS[1], KEYS[3]]
    assert ledger.money("texts").held_usd == 4.0
    assert waits(ledger, rules) == "pool"
    assert ledger.submitted(pool.token, "arn:pool")
    assert ledger.observe(pool.token, S.PARTIAL) == [KEYS[0], KEYS[1], KEYS[3]]
    assert {row.key: row.state for row in ledger.shards("texts", keys=[KEYS[0], KEYS[4]])} == {
        KEYS[0]: State.PARTIAL, KEYS[4]: State.QUEUED
    }  # fmt: skip


def test_a_pool_never_passes_the_most_records(ledger: Ledger) -> None:
    rules = {"texts": SubmissionRules(min_records=100, max_records=110)}
    queue(ledger, KEYS[:2], records=60)
    ledger.set_scope(SCOPE, slots=9)
    assert waits(ledger, rules) == "pool"
    queue(ledger, KEYS[2:3], records=45)
    assert [job.shard for job in take(ledger, rules).jobs] == [KEYS[0], KEYS[2]]


def test_a_refused_submission_leaves_everything_as_it_was(ledger: Ledger, clock: Clock) -> None:
    queue(ledger, KEYS[:2])
    before = ledger.shard("texts", KEY)
    claim = take(ledger)
    clock.now += 1
    assert ledger.refused(claim.token, "slow down", pause=30)
    after = ledger.shard("texts", KEY)
    assert before is not None
    assert after is not None
    assert (after.state, after.attempt, after.job) == (before.state, before.attempt, before.job)
    assert ledger.money("texts").held_usd == 0.0
    assert ledger.jobs_of(claim.token) == []
    assert not ledger.refused(claim.token, "again")
    assert not ledger.submitted(claim.token, "arn:1")
    assert ledger.observe(claim.token, S.RUNNING) == []
    answer = ledger.claim_submission(SCOPE, RULES, named)
    assert answer == Waiting("paused", clock.now + 30)
    assert ledger.scope(SCOPE).rejections == 1
    with ledger._database.write() as connection:
        pause_until(connection, SCOPE, clock.now + 5)
    clock.now += 29
    assert waits(ledger) == "paused", "a longer pause stays"
    clock.now += 1
    again = take(ledger)
    assert again.token == claim.token
    assert ledger.observe(again.token, S.FAILED) == [KEY], "from submitting too"
    assert (ledger.scope(SCOPE).paused_until, ledger.scope(SCOPE).rejections) == (0.0, 0)
    assert not ledger.refused(again.token, "late"), "what has ended never changes"


def test_a_refused_pipeline_waits_for_a_person(ledger: Ledger) -> None:
    queue(ledger, KEYS[:1])
    claim = take(ledger)
    assert ledger.refused(claim.token, "AccessDenied", block="the role cannot be passed")
    money = ledger.money("texts")
    assert (money.blocked, money.blocked_kind) == ("the role cannot be passed", "refused")
    assert waits(ledger) == "empty"
    ledger.clear_blocked("texts")
    assert take(ledger).token == claim.token


def test_never_backwards_and_never_from_the_end(ledger: Ledger) -> None:
    token = submit(ledger, [KEY])
    assert ledger.observe(token, S.RUNNING, service_id="arn:1") == [KEY], "found by its name"
    assert ledger.observe(token, S.SUBMITTED) == []
    assert ledger.observe(token, S.SUBMITTING) == []
    assert state(ledger) == State.RUNNING
    assert ledger.observe(token, S.EXPIRED, "too late") == [KEY]
    row = ledger.submission(token)
    for later in S:
        if later is not S.REFUSED:
            assert ledger.observe(token, later, "other", 1.0, service_id="arn:2") == []
    assert ledger.submission(token) == row
    assert ledger.observe("unknown", S.RUNNING) == []
    with pytest.raises(ValueError, match="refused"):
        ledger.observe(token, S.REFUSED)


def test_a_token_is_given_once(ledger: Ledger) -> None:
    queue(ledger, KEYS[:2])
    take(ledger)
    with pytest.raises(ValueError, match=r"token .* submitting"):
        ledger.claim_submission(SCOPE, RULES, lambda jobs: named([ledger_job(ledger)]))
    assert state(ledger, KEYS[1]) == State.QUEUED


def ledger_job(ledger: Ledger) -> JobRow:
    job = ledger.job("texts", KEY, 1)
    assert job is not None
    return job


def test_a_shard_that_went_on_does_not_follow_its_old_job(ledger: Ledger) -> None:
    token = submit(ledger, [KEY])
    ledger.submitted(token, "arn:1")
    assert adopts(ledger, KEY, fence=7)
    assert ledger.observe(token, S.RUNNING) == []
    ledger.recompute("texts", [KEY])
    queue(ledger, [KEY])
    assert waits(ledger) == "empty", "its old job is alive: two would be paid for"
    assert ledger.observe(token, S.STOPPED) == []
    assert state(ledger) == State.QUEUED
    assert [job.fence for job in ledger.unsettled("texts")] == [1]
    assert ledger.settle("texts", KEY, 1, 0.5)
    assert ledger.unsettled("texts") == []
    assert take(ledger).jobs[0].fence == 8


def test_a_superseded_shard_keeps_its_slot_and_its_money_until_its_job_ends(ledger: Ledger) -> None:
    token = submit(ledger, [KEY])
    queue(ledger, KEYS[1:3])
    ledger.add_shards("texts", 1, [], superseded=KEYS[:2])
    assert ledger.unsettled("texts") == []
    assert ledger.observe(token, S.SUCCEEDED) == []
    assert [job.shard for job in ledger.unsettled("texts")] == [KEY]
    assert [job.shard for job in take(ledger).jobs] == KEYS[2:3], "it has left the queue"
    assert ledger.finished("texts", 10) == []
