"""Many real processes on one queue: no slot passed, no job submitted twice, nothing said twice."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise

from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State, SubmissionState
from batch_assets_tests.ledger.helpers import SCOPE, queue
from batch_assets_tests.waiting import PATIENCE_SECONDS

Opened = Callable[..., Ledger]
KEYS = [f"g0001-{ordinal:05d}" for ordinal in range(60)]
SLOTS = 4

# Takes slots as long as there is anything queued; every seventh submission is refused at first.
SUBMITTER = """
import os, sys
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import SubmissionRules, Waiting
from batch_assets.ledger.states import LIVE_SUBMISSION, SubmissionState
from batch_assets_tests.ledger.helpers import SCOPE, named

print("up", flush=True)
input()
ledger, number = Ledger.open(sys.argv[1]), 0
rules = {"texts": SubmissionRules(budget_usd=45.0, min_records=100)}
print("said" if ledger.notice_once("begun") else "unsaid", ledger.reserve_calls("calls", 10, 60))
while True:
    claim = ledger.claim_submission(SCOPE, rules, named)
    if isinstance(claim, Waiting):
        if claim.reason == "empty":
            break
        assert claim.reason in ("full", "pool"), claim
        continue
    assert len(ledger.submissions(scope=SCOPE, states=LIVE_SUBMISSION)) <= 4
    number += 1
    if number % 7 == 1:
        assert ledger.refused(claim.token, "no")
        continue
    assert ledger.submitted(claim.token, f"arn:{os.getpid()}:{number}")
    ledger.observe(claim.token, SubmissionState.RUNNING)
    for job in claim.jobs:
        assert ledger.settle("texts", job.shard, job.fence, job.bound_usd / 2)
        print("job", job.shard, job.fence)
    assert len(ledger.observe(claim.token, SubmissionState.SUCCEEDED)) == len(claim.jobs)
"""


def test_processes_share_slots_money_and_a_queue(url: str, opened: Opened) -> None:
    ledger = opened(url)
    ledger.attach("texts", "/out", 1)
    ledger.add_shards("texts", 1, [(key, ordinal, 100, 100) for ordinal, key in enumerate(KEYS)])
    queue(ledger, KEYS[:30], records=100)
    queue(ledger, KEYS[30:], records=50)
    ledger.set_scope(SCOPE, slots=SLOTS)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with ExitStack() as stack:
        workers = [
            stack.enter_context(subprocess.Popen([sys.executable, "-c", SUBMITTER, url], **pipes))
            for _ in range(4)
        ]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "up\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        answers = [worker.communicate(timeout=PATIENCE_SECONDS) for worker in workers]
    assert [errors for _, errors in answers] == [""] * 4
    lines = [line.split() for output, _ in answers for line in output.splitlines()]
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
    starts = sorted(float(line[1]) for line in lines if line[0] != "job")
    assert all(later - earlier >= 10 - 1e-3 for earlier, later in pairwise(starts))
