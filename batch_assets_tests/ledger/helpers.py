"""Short ways to say what many ledger tests do."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

from batch_assets.ledger.holder import Holder
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import Adoption, Claim
from batch_assets.ledger.states import State

KEYS = [f"g0001-{ordinal:05d}" for ordinal in range(5)]
DONE = {"fingerprint": "f1", "embedded": 97, "rejected": 2, "failed": 1, "tokens": 1_000}
ELSEWHERE = Holder("another-host", "another-boot", 17, "12345")
ME = Holder.current()


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
