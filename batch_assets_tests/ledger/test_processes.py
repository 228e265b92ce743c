"""Many real processes on one ledger: nothing claimed twice, no lock ever shown, the killed set free."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets_tests.ledger.helpers import ELSEWHERE, ME, adopts
from batch_assets_tests.waiting import PATIENCE_SECONDS

Opened = Callable[..., Ledger]
KEYS = [f"g0001-{ordinal:05d}" for ordinal in range(200)]

# Opens a ledger that is not there yet, plans, and takes what it gets, at the same time as its siblings.
WORKER = """
import random, sys
from batch_assets.ledger.holder import Holder
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State

print("up", flush=True)
input()
ledger, me = Ledger.open(sys.argv[1]), Holder.current()
keys = [f"g0001-{ordinal:05d}" for ordinal in range(200)]
ledger.attach("texts", "/out", 1)
ledger.add_shards("texts", 1, [(key, ordinal, 10, 100) for ordinal, key in enumerate(keys)])
ledger.move("texts", keys, [State.PLANNED], State.PREPARED)
ledger.move("texts", keys, [State.PREPARED], State.READY)
random.shuffle(keys)
for key in keys:
    claim = ledger.claim("texts", key, me)
    if claim is not None:
        ledger.heartbeat(me)
        assert ledger.begin_commit(claim)
        assert ledger.finish(claim, fingerprint="f", embedded=10, rejected=0, failed=0, tokens=1)
        print(key, claim.fence, claim.attempt)
"""

HOLDER = """
import sys
from batch_assets.ledger.holder import Holder
from batch_assets.ledger.ledger import Ledger

ledger = Ledger.open(sys.argv[1])
for key in sys.argv[2:]:
    print(ledger.claim("texts", key, Holder.current()).fence, flush=True)
print(ledger.lease("merge:texts", Holder.current()), flush=True)
input()
"""


def test_each_shard_is_claimed_once(url: str, opened: Opened) -> None:
    number = 8 if url.startswith("sqlite") else 4
    command = [sys.executable, "-c", WORKER, url]
    with ExitStack() as stack:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        workers = [stack.enter_context(subprocess.Popen(command, **pipes)) for _ in range(number)]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "up\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        answers = [worker.communicate(timeout=PATIENCE_SECONDS) for worker in workers]
    assert [errors for _, errors in answers] == [""] * number
    assert Counter(line for output, _ in answers for line in output.splitlines()) == {
        f"{key} 1 1": 1 for key in KEYS
    }
    ledger = opened(url)
    assert ledger.counts("texts") == {State.COLLECTED: 200}
    assert ledger.totals("texts").embedded == 2_000


def test_the_claims_of_a_killed_process_are_free_at_once(url: str, opened: Opened) -> None:
    ledger = opened(url)
    ledger.attach("texts", "/out", 1)
    ledger.add_shards("texts", 1, [(key, ordinal, 10, 100) for ordinal, key in enumerate(KEYS)])
    ledger.move("texts", KEYS, [State.PLANNED], State.PREPARED)
    ledger.move("texts", KEYS, [State.PREPARED], State.READY)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, url, *KEYS[:2]], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert [child.stdout.readline() for _ in range(3)] == [b"1\n"] * 3
        assert ledger.claim("texts", KEYS[0], ME) is None
        assert ledger.lease("merge:texts", ME) is None
        row = ledger.shard("texts", KEYS[0])
        assert row is not None
        assert row.holder is not None
        assert row.holder.pid == child.pid
        child.send_signal(signal.SIGKILL)
        child.wait()
        for key in KEYS[:2]:
            claim = ledger.claim("texts", key, ME)
            assert claim is not None
            assert (claim.fence, claim.attempt) == (2, 2)
        assert ledger.lease("merge:texts", ME) == 2


def test_a_forked_child_uses_connections_of_its_own(url: str, opened: Opened) -> None:
    ledger = opened(url)
    ledger.attach("texts", "/out", 1)
    ledger.add_shards("texts", 1, [(key, ordinal, 10, 100) for ordinal, key in enumerate(KEYS)])
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for key in KEYS[:50]:
                ledger.move("texts", [key], [State.PLANNED], State.PREPARED)
            code = 0
        finally:
            os._exit(code)
    for key in KEYS[50:100]:
        ledger.move("texts", [key], [State.PLANNED], State.PREPARED)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ledger.counts("texts") == {State.PLANNED: 100, State.PREPARED: 100}
    assert adopts(ledger, KEYS[0], fence=1)
    assert ledger.lease("merge:texts", ELSEWHERE) == 1
