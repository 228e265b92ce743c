"""Short ways to say what many ledger tests do."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from batch_assets.ledger.holder import Holder
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import Adoption, Claim, JobRow, SubmissionClaim, SubmissionRules, Waiting
from batch_assets.ledger.states import State, SubmissionState

both_databases = pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
"""For tests of what the databases do each in its own way: isolation, locks, migrations."""

KEYS = [f"g0001-{ordinal:05d}" for ordinal in range(5)]
DONE = {"fingerprint": "f1", "embedded": 97, "rejected": 2, "failed": 1, "tokens": 1_000}
ELSEWHERE = Holder("another-host", "another-boot", 17, "12345")
ME = Holder.current()


def planned(ledger: Ledger, root: str = "/out") -> Ledger:
    """The ledger with pipeline `texts` at epoch 1 and planned shards of 100 records."""
    ledger.attach("texts", root, 1)
    ledger.add_shards("texts", 1, [(key, ordinal, 100, 5_000) for ordinal, key in enumerate(KEYS)])
    return ledger


def make_ready(ledger: Ledger, keys: list[str] | None = None) -> None:
    keys = KEYS if keys is None else keys
    ledger.move("texts", keys, [State.PLANNED], State.PREPARED)
    ledger.move("texts", keys, [State.PREPARED], State.READY)


def claimed(ledger: Ledger, key: str = KEYS[0], holder: Holder = ME) -> Claim:
    make_ready(ledger, [key])
    claim = ledger.claim("texts", key, holder)
    assert claim is not None
    return claim


def state(ledger: Ledger, key: str = KEYS[0]) -> State:
    row = ledger.shard("texts", key)
    assert row is not None
    return row.state


def dead_process() -> Holder:
    """A process of this host that is no more."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    child.kill()
    child.wait()
    return replace(ME, pid=child.pid)


def holds(ledger: Ledger, claim: Claim) -> bool:
    """Whether the shard is still this claim's: nobody has claimed it since."""
    row = ledger.shard(claim.pipeline, claim.shard)
    return row is not None and (row.fence, row.holder) == (claim.fence, claim.holder)


def adopts(ledger: Ledger, key: str, **marker: Any) -> bool:
    """Whether the ledger believes a commit marker; fields that are not given are those of DONE."""
    return ledger.adopt_all("texts", [Adoption(**{"key": key, **DONE, **marker})]) == [key]


SCOPE = "bedrock/1/us-east-1/titan"
RULES = {"texts": SubmissionRules()}


def named(jobs: list[JobRow]) -> tuple[str, str]:
    """A token and a name that tell which jobs they are of."""
    token = "+".join(f"{job.pipeline}/{job.shard}/{job.fence}" for job in jobs)
    return token, f"name-{token}"


def queue(
    ledger: Ledger, keys: list[str], records: int = 100, bound_usd: float = 1.0, pipeline: str = "texts"
) -> list[Claim]:
    """Prepare shards of a deferred pipeline, and put a job of each into the queue, in this order."""
    ledger.set_deferred(pipeline, True)
    ledger.move(pipeline, keys, [State.PLANNED], State.PREPARED)
    claims = []
    for key in keys:
        claim = ledger.claim_preparation(pipeline, key, ME)
        assert claim is not None
        assert ledger.enqueue(claim, "batch", records, records * 50, bound_usd)
        claims.append(claim)
    return claims


def take(ledger: Ledger, rules: dict[str, SubmissionRules] | None = None, slots: int = 10) -> SubmissionClaim:
    ledger.set_scope(SCOPE, slots=slots)
    claim = ledger.claim_submission(SCOPE, rules or RULES, named)
    assert isinstance(claim, SubmissionClaim), claim
    return claim


def submit(ledger: Ledger, keys: list[str]) -> str:
    """Queue and claim shards, one submission each; the last one's token."""
    queue(ledger, keys)
    return [take(ledger).token for _ in keys][-1]


def waits(ledger: Ledger, rules: dict[str, SubmissionRules] | None = None) -> str:
    """Why nothing is to be submitted."""
    answer = ledger.claim_submission(SCOPE, rules or RULES, named)
    assert isinstance(answer, Waiting), answer
    return answer.reason


def ended(ledger: Ledger, key: str = KEYS[0], state: SubmissionState = SubmissionState.SUCCEEDED) -> str:
    """Have a shard's job end at the service; its token."""
    token = submit(ledger, [key])
    assert ledger.submitted(token, f"arn:{token}")
    assert ledger.observe(token, state) == [key]
    return token


def postponed_until(ledger: Ledger, now: float) -> float | None:
    """When the next shard that is postponed can be collected; None where none is."""
    times = [row.collect_after for row in ledger.shards("texts") if (row.collect_after or 0.0) > now]
    return min((time for time in times if time is not None), default=None)
