"""Many real processes on one queue: no slot passed, no job submitted twice, nothing said twice."""

import os
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

from batch_assets.ledger.budget import Budget
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import SubmissionRules, Waiting
from batch_assets.ledger.states import LIVE_SUBMISSION, State, SubmissionState
from batch_assets_tests.ledger.helpers import SCOPE, both_databases, named, queue
from batch_assets_tests.ledger.together import run_together

pytestmark = both_databases

Opened = Callable[..., Ledger]
KEYS = [f"g0001-{ordinal:05d}" for ordinal in range(60)]
SLOTS = 4


def submit(url: str, start: Barrier, answers: Connection) -> None:
    """Take slots as long as there is anything queued; every seventh submission is refused at first."""
    start.wait()
    ledger, number = Ledger.open(url), 0
    rules = {"texts": SubmissionRules(budget=Budget(45.0), min_records=100)}
    said = "said" if ledger.notice_once("begun") else "unsaid"
    answers.send((said, ledger.reserve_calls("calls", 10, 60)))
    while True:
        claim = ledger.claim_submission(SCOPE, rules, named)
        if isinstance(claim, Waiting):
            if claim.reason == "empty":
                break
            assert claim.reason in ("full", "pool"), claim
            continue
        assert len(ledger.submissions(scope=SCOPE, states=LIVE_SUBMISSION)) <= SLOTS
        number += 1
        if number % 7 == 1:
            assert ledger.refused(claim.token, "no")
            continue
        assert ledger.submitted(claim.token, f"arn:{os.getpid()}:{number}")
        ledger.observe(claim.token, SubmissionState.RUNNING)
        for job in claim.jobs:
            assert ledger.settle("texts", job.shard, job.fence, job.bound_usd / 2)
            answers.send(("job", job.shard))
        assert len(ledger.observe(claim.token, SubmissionState.SUCCEEDED)) == len(claim.jobs)


def test_processes_share_slots_money_and_a_queue(url: str, opened: Opened) -> None:
    ledger = opened(url)
    ledger.attach("texts", "/out", 1)
    ledger.add_shards("texts", 1, [(key, ordinal, 100, 100) for ordinal, key in enumerate(KEYS)])
    queue(ledger, KEYS[:30], records=100)
    queue(ledger, KEYS[30:], records=50)
    ledger.set_scope(SCOPE, slots=SLOTS)
    lines = run_together(submit, url, count=4)
    jobs = Counter(line[1] for line in lines if line[0] == "job")
    assert jobs == dict.fromkeys(KEYS, 1)
    assert ledger.counts("texts") == {State.SUCCEEDED: 60}
    assert {row.attempt for row in ledger.shards("texts")} == {1}
    carried = Counter(row.jobs for row in ledger.submissions(states=[SubmissionState.SUCCEEDED]))
    assert carried == {1: 30, 2: 15}
    assert ledger.submissions(states=set(SubmissionState) - {SubmissionState.SUCCEEDED}) == []
    money = ledger.money("texts")
    assert (money.held_usd, money.spent_usd, money.blocked) == (0.0, 30.0, None)
    assert Counter(line[0] for line in lines if line[0] != "job") == {"said": 1, "unsaid": 3}
    starts = sorted(line[1] for line in lines if line[0] != "job")
    assert all(later - earlier >= 10 - 1e-3 for earlier, later in pairwise(starts))
