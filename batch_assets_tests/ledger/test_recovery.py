"""A lost ledger, or a lost answer: what exists at the service is found again, and paid for once."""

from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import JobRow
from batch_assets.ledger.states import State, SubmissionState
from batch_assets_tests.ledger.helpers import (
    KEYS,
    ME,
    SCOPE,
    adopts,
    queue,
    state,
    submit,
    take,
    waits,
)

KEY = KEYS[0]
S = SubmissionState


LOST = "bedrock/job"


def bare(key: str, fence: int, bound_usd: float = 1.0) -> JobRow:
    """A job as its descriptor in the output root tells it."""
    return JobRow("texts", key, fence, "batch", 100, 5_000, bound_usd)


def test_submissions_are_adopted_from_the_service(ledger: Ledger) -> None:
    ledger.set_deferred("texts", True)
    ledger.set_spent("texts", 3.25)
    ledger.move("texts", KEYS[:1], [State.PLANNED], State.PREPARED)
    ledger.attach("texts", "s3://bucket/out", 1)
    adopts(ledger, KEYS[4], fence=1)
    carried = [bare(key, 7) for key in (KEYS[0], KEYS[1], KEYS[4])]
    for moved in ([KEYS[0], KEYS[1]], []):
        assert ledger.adopt_submission("t1", "n1", SCOPE, "arn:1", carried, 500.0) == moved
    submission = ledger.submission("t1")
    assert submission is not None
    assert (submission.state, submission.jobs, submission.submitted_at) == (S.SUBMITTED, 3, 500.0)
    row = ledger.shard("texts", KEY)
    assert row is not None
    assert (row.state, row.job, row.fence, row.attempt) == (State.SUBMITTED, 7, 7, 1)
    assert (ledger.money("texts").held_usd, ledger.money("texts").spent_usd) == (3.0, 3.25)
    assert ledger.observe("t1", S.PARTIAL) == [KEYS[0], KEYS[1]]
    assert [job.shard for job in ledger.unsettled("texts")] == [KEYS[4]], "committed without its results"
    claim = ledger.claim("texts", KEY, ME)
    assert claim is not None
    assert claim.fence == 8
    assert ledger.adopt_submission("t1", "n1", SCOPE, "arn:1", carried) == []
    assert state(ledger) == State.COLLECTING


def test_an_adopted_submission_has_a_slot(ledger: Ledger) -> None:
    queue(ledger, KEYS[2:])
    ledger.set_scope(SCOPE, slots=1)
    ledger.adopt_submission("t1", "n1", SCOPE, "arn:1", [bare(KEY, 7)])
    assert waits(ledger) == "full"


def test_a_submission_whose_answer_was_lost_is_adopted(ledger: Ledger) -> None:
    claim_token = submit(ledger, [KEY])
    assert ledger.adopt_submission(claim_token, "n", SCOPE, "arn:1", [bare(KEY, 1)]) == [KEY]
    submission = ledger.submission(claim_token)
    assert submission is not None
    assert (submission.state, submission.service_id) == (S.SUBMITTED, "arn:1")
    row = ledger.shard("texts", KEY)
    assert row is not None
    assert row.attempt == 1
    assert ledger.money("texts").held_usd == 1.0
    assert ledger.submitted(claim_token, "arn:1"), "the answer that came late after all"


def test_one_that_was_taken_for_refused_but_exists_is_adopted(ledger: Ledger) -> None:
    token = submit(ledger, [KEY])
    assert ledger.refused(token, "no answer")
    assert ledger.adopt_submission(token, "n", SCOPE, "arn:1", [bare(KEY, 1)]) == [KEY]
    assert state(ledger) == State.SUBMITTED
    assert waits(ledger) == "empty"
    assert ledger.money("texts").held_usd == 1.0


def test_what_waited_is_queued_again(ledger: Ledger) -> None:
    ledger.set_deferred("texts", True)
    assert ledger.restore_queued("texts", KEY, 5, "batch", 90, 900, 0.5)
    assert not ledger.restore_queued("texts", KEY, 5, "batch", 90, 900, 0.5)
    assert not ledger.restore_queued("texts", KEY, 6, "batch", 90, 900, 0.5), "it is in the queue"
    assert ledger.restore_queued("texts", KEYS[1], 3, "on_demand", 4, 40, 0.1)
    assert [row.key for row in ledger.finished("texts", 10)] == [KEYS[1]]
    assert not ledger.restore_queued("texts", "g0009-00000", 3, "batch", 4, 40, 0.1)
    claim = take(ledger)
    assert [(job.shard, job.fence, job.records) for job in claim.jobs] == [(KEY, 5, 90)]
    row = ledger.shard("texts", KEY)
    assert row is not None
    assert (row.fence, row.attempt) == (5, 1)


def test_another_epoch_forgets_jobs_but_no_slot(ledger: Ledger) -> None:
    queue(ledger, KEYS[:2])
    running, done = take(ledger), take(ledger)
    ledger.submitted(running.token, "arn:1")
    ledger.observe(done.token, S.SUCCEEDED)
    ledger.settle("texts", KEYS[1], 1, 0.5)
    ledger.attach("texts", "s3://bucket/out", 2)
    money = ledger.money("texts")
    assert (money.held_usd, money.spent_usd) == (0.0, 0.0)
    assert [row.token for row in ledger.submissions()] == [running.token]
    assert ledger.jobs_of(running.token) == []
    ledger.set_scope(SCOPE, slots=1)
    assert waits(ledger) == "full"
    ledger.add_shards("texts", 1, [(KEY, 0, 100, 5_000)])
    assert ledger.adopt_submission(running.token, running.name, SCOPE, "arn:1", [bare(KEY, 1)]) == [KEY]
    assert ledger.observe(running.token, S.SUCCEEDED) == [KEY]
    claim = ledger.claim("texts", KEY, ME)
    assert claim is not None
    assert claim.fence == 1_000_001
