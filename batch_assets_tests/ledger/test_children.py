"""Submissions of many jobs: gathered from the queue, and jobs that end one by one."""

from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import SubmissionClaim, SubmissionRules
from batch_assets.ledger.states import State, SubmissionState
from batch_assets_tests.ledger.conftest import Clock
from batch_assets_tests.ledger.helpers import DONE, KEYS, ME, SCOPE, queue, state, take, waits

ARRAY = {"texts": SubmissionRules(together=4)}


def submitted(ledger: Ledger, rules: dict[str, SubmissionRules] = ARRAY) -> SubmissionClaim:
    claim = take(ledger, rules)
    assert ledger.submitted(claim.token, f"job-of-{claim.token}")
    ledger.observe(claim.token, SubmissionState.RUNNING)
    return claim


def test_a_submission_takes_all_that_is_queued_up_to_its_size(ledger: Ledger) -> None:
    queue(ledger, KEYS)
    assert [job.shard for job in submitted(ledger).jobs] == KEYS[:4]
    assert [job.shard for job in submitted(ledger).jobs] == KEYS[4:]
    assert waits(ledger, ARRAY) == "empty"


def test_it_waits_until_the_queue_is_quiet_and_not_for_ever(ledger: Ledger, clock: Clock) -> None:
    ledger.set_scope(SCOPE, slots=10)
    rules = {"texts": SubmissionRules(together=10, gather_seconds=3.0)}
    for key in KEYS[:4]:
        queue(ledger, [key])
        clock.now += 2
        assert waits(ledger, rules) == "gathering"
    clock.now += 1
    assert [job.shard for job in take(ledger, rules).jobs] == KEYS[:4]
    queue(ledger, KEYS[4:])
    assert waits(ledger, rules) == "gathering"
    full = {"texts": SubmissionRules(together=2, gather_seconds=3.0)}
    assert waits(ledger, full) == "gathering"
    clock.now += 3
    assert [job.shard for job in take(ledger, full).jobs] == KEYS[4:]


def test_one_that_is_full_waits_for_nothing(ledger: Ledger) -> None:
    queue(ledger, KEYS[:2])
    assert len(take(ledger, {"texts": SubmissionRules(together=2, gather_seconds=60.0)}).jobs) == 2


def test_no_more_are_alive_than_may_be(ledger: Ledger) -> None:
    rules = {"texts": SubmissionRules(together=10, alive=3)}
    queue(ledger, KEYS)
    first = submitted(ledger, rules)
    assert [job.shard for job in first.jobs] == KEYS[:3]
    assert waits(ledger, rules) == "full"
    ledger.observe_jobs(first.token, {(KEYS[1], first.jobs[1].fence): State.SUCCEEDED})
    assert [job.shard for job in submitted(ledger, rules).jobs] == KEYS[3:4]
    ledger.observe(first.token, SubmissionState.SUCCEEDED)
    assert [job.shard for job in submitted(ledger, rules).jobs] == KEYS[4:]


def test_each_job_ends_by_itself_and_a_failed_one_goes_again_while_others_run(ledger: Ledger) -> None:
    queue(ledger, KEYS[:3])
    array = submitted(ledger)
    fences = {job.shard: job.fence for job in array.jobs}
    ended = {(KEYS[0], fences[KEYS[0]]): State.SUCCEEDED, (KEYS[1], fences[KEYS[1]]): State.FAILED}
    assert sorted(ledger.observe_jobs(array.token, ended)) == KEYS[:2]
    assert ledger.observe_jobs(array.token, ended) == [], "told twice"
    assert ledger.ended_jobs(array.token) == 2
    assert [state(ledger, key) for key in KEYS[:3]] == [State.SUCCEEDED, State.FAILED, State.RUNNING]
    assert [row.key for row in ledger.finished("texts", 10)] == KEYS[:2]
    claim = ledger.claim("texts", KEYS[1], ME)
    assert claim is not None
    assert ledger.enqueue(claim, "batch", 100, 0, 0.0)
    again = submitted(ledger)
    assert [job.shard for job in again.jobs] == [KEYS[1]]
    # The array's own end stands for what nobody has told of, and for nothing else.
    assert ledger.observe(array.token, SubmissionState.FAILED) == [KEYS[2]]
    assert [state(ledger, key) for key in KEYS[:3]] == [State.SUCCEEDED, State.RUNNING, State.FAILED]
    assert ledger.observe_jobs(array.token, {(KEYS[2], fences[KEYS[2]]): State.SUCCEEDED}) == []


def test_a_shard_that_was_committed_meanwhile_stays_so(ledger: Ledger) -> None:
    queue(ledger, KEYS[:2])
    array = submitted(ledger)
    ledger.observe_jobs(array.token, {(KEYS[0], array.jobs[0].fence): State.SUCCEEDED})
    claim = ledger.claim("texts", KEYS[0], ME)
    assert claim is not None
    assert ledger.begin_commit(claim)
    assert ledger.finish(claim, **DONE)
    ledger.observe(array.token, SubmissionState.FAILED)
    assert [state(ledger, key) for key in KEYS[:2]] == [State.COLLECTED, State.FAILED]
