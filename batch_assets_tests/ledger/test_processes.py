"""Many real processes on one ledger: nothing claimed twice, no lock ever shown, the killed set free."""

import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

from batch_assets.ledger.holder import Holder
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets_tests.forking import forking
from batch_assets_tests.ledger.helpers import ELSEWHERE, ME, adopts, both_databases
from batch_assets_tests.ledger.together import run_together

pytestmark = both_databases

Opened = Callable[..., Ledger]
KEYS = [f"g0001-{ordinal:05d}" for ordinal in range(80)]
HELD = KEYS[:2]


def work(url: str, start: Barrier, answers: Connection) -> None:
    """Open a ledger that is not planned yet, plan, and take what it gets, at the same time as its siblings."""
    start.wait()
    with closing(answers):
        ledger, me = Ledger.open(url), Holder.current()
        ledger.attach("texts", "/out", 1)
        ledger.add_shards("texts", 1, [(key, ordinal, 10, 100) for ordinal, key in enumerate(KEYS)])
        ledger.move("texts", KEYS, [State.PLANNED], State.PREPARED)
        ledger.move("texts", KEYS, [State.PREPARED], State.READY)
        for key in random.sample(KEYS, len(KEYS)):
            claim = ledger.claim("texts", key, me)
            if claim is not None:
                ledger.heartbeat(me)
                assert ledger.begin_commit(claim)
                assert ledger.finish(claim, fingerprint="f", embedded=10, rejected=0, failed=0, tokens=1)
                answers.send((key, claim.fence, claim.attempt))


def hold(url: str, answers: Connection) -> None:
    """Claim two shards and a lease, say so, and go no further."""
    ledger = Ledger.open(url)
    for key in HELD:
        claim = ledger.claim("texts", key, Holder.current())
        answers.send(claim.fence if claim is not None else None)
    answers.send(ledger.lease("merge:texts", Holder.current()))
    signal.pause()


def test_each_shard_is_claimed_once(url: str, opened: Opened) -> None:
    claimed = run_together(work, url, count=6 if url.startswith("sqlite") else 4)
    assert Counter(claimed) == {(key, 1, 1): 1 for key in KEYS}
    ledger = opened(url)
    assert ledger.counts("texts") == {State.COLLECTED: len(KEYS)}
    assert ledger.totals("texts").embedded == 10 * len(KEYS)


def test_the_claims_of_a_killed_process_are_free_at_once(url: str, opened: Opened) -> None:
    ledger = opened(url)
    ledger.attach("texts", "/out", 1)
    ledger.add_shards("texts", 1, [(key, ordinal, 10, 100) for ordinal, key in enumerate(KEYS)])
    ledger.move("texts", KEYS, [State.PLANNED], State.PREPARED)
    ledger.move("texts", KEYS, [State.PREPARED], State.READY)
    context = forking()
    ours, theirs = context.Pipe()
    child = context.Process(target=hold, args=(url, theirs), daemon=True)
    child.start()
    assert [ours.recv() for _ in range(3)] == [1, 1, 1]
    assert ledger.claim("texts", KEYS[0], ME) is None
    assert ledger.lease("merge:texts", ME) is None
    row = ledger.shard("texts", KEYS[0])
    assert row is not None
    assert row.holder is not None
    assert row.holder.pid == child.pid
    child.kill()
    child.join()
    for key in HELD:
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
            for key in KEYS[:20]:
                ledger.move("texts", [key], [State.PLANNED], State.PREPARED)
            code = 0
        finally:
            os._exit(code)
    for key in KEYS[20:40]:
        ledger.move("texts", [key], [State.PLANNED], State.PREPARED)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ledger.counts("texts") == {State.PLANNED: len(KEYS) - 40, State.PREPARED: 40}
    assert adopts(ledger, KEYS[0], fence=1)
    assert ledger.lease("merge:texts", ELSEWHERE) == 1
