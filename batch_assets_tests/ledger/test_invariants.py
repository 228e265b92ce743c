"""Whatever is done in whatever order: tallies equal a recount, fences never fall, one live claim a shard."""

from collections import Counter
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import Claim
from batch_assets.ledger.states import MOVES, State
from batch_assets_tests.ledger.conftest import Clock, postgresql_database, sqlite_database
from batch_assets_tests.ledger.helpers import ELSEWHERE, ME, adopts, dead_process, holds

KEYS = [f"g0001-{ordinal:05d}" for ordinal in range(4)]
DEAD = dead_process()
HOLDERS = [ME, replace(ME, host="there"), ELSEWHERE, DEAD]
UNCLAIMED_MOVES = sorted(
    (frm, to)
    for frm, targets in MOVES.items()
    for to in targets & {State.PREPARED, State.READY, State.STOPPED, State.EXHAUSTED}
)

keys = st.sampled_from(KEYS)
some_keys = st.lists(keys, unique=True)
holders = st.sampled_from(HOLDERS)
fingerprints = st.sampled_from(["f1", "f2"])
small = st.integers(0, 5)


class AnyOrder(RuleBasedStateMachine):
    """Every verb of the ledger, with what a holder remembers of its claims."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        with ExitStack() as stack:
            self.ledger = Ledger.open(stack.enter_context(self.database()), clock=self.clock)
            stack.callback(self.ledger.dispose)
            self.resources = stack.pop_all()
        self.claims: list[Claim] = []
        self.fences: dict[str, int] = {}
        self.epoch = 1
        self.ledger.attach("texts", "/out", 1)
        self.plan()
        self.ledger.move("texts", KEYS, [State.PLANNED], State.PREPARED)
        self.ledger.move("texts", KEYS, [State.PREPARED], State.READY)

    def teardown(self) -> None:
        self.resources.close()

    def database(self) -> AbstractContextManager[str]:
        """The URL of an empty database, for as long as the block lasts."""
        return sqlite_database()

    def some_claim(self, data: st.DataObject) -> Claim | None:
        return data.draw(st.sampled_from(self.claims)) if self.claims else None

    @rule()
    def plan(self) -> None:
        self.ledger.add_shards("texts", 1, [(key, ordinal, 10, 100) for ordinal, key in enumerate(KEYS)])

    @rule(some=some_keys, move=st.sampled_from(UNCLAIMED_MOVES), rejected=small)
    def move(self, some: list[str], move: tuple[State, State], rejected: int) -> None:
        self.ledger.move("texts", some, [move[0]], move[1], rejected=rejected)

    @rule(key=keys, holder=holders)
    def claim(self, key: str, holder: object) -> None:
        before = [claim for claim in self.claims if claim.shard == key and holds(self.ledger, claim)]
        row = self.ledger.shard("texts", key)
        assert isinstance(holder, type(ME))
        claim = self.ledger.claim("texts", key, holder)
        if claim is None:
            return
        assert row is not None
        assert row.state in (State.READY, State.RUNNING, State.COLLECTING)
        assert claim.fence > row.fence
        assert not any(holds(self.ledger, old) for old in before)
        assert holds(self.ledger, claim)
        self.claims.append(claim)

    @rule(data=st.data())
    def begin_commit(self, data: st.DataObject) -> None:
        if claim := self.some_claim(data):
            held = holds(self.ledger, claim)
            assert not self.ledger.begin_commit(claim) or held

    @rule(data=st.data(), fingerprint=fingerprints, embedded=small, tokens=st.none() | small)
    def finish(self, data: st.DataObject, fingerprint: str, embedded: int, tokens: int | None) -> None:
        if claim := self.some_claim(data):
            held = holds(self.ledger, claim)
            before = self.ledger.shard("texts", claim.shard)
            done = self.ledger.finish(
                claim, fingerprint=fingerprint, embedded=embedded, rejected=1, failed=2, tokens=tokens
            )
            if held:
                assert done
            else:
                assert self.ledger.shard("texts", claim.shard) == before

    @rule(data=st.data(), attempts=st.integers(1, 3))
    def fail(self, data: st.DataObject, attempts: int) -> None:
        if claim := self.some_claim(data):
            held = holds(self.ledger, claim)
            ended = self.ledger.fail(claim, "no", attempts)
            if held:
                assert ended is (State.READY if claim.attempt < attempts else State.EXHAUSTED)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if claim := self.some_claim(data):
            held = holds(self.ledger, claim)
            assert self.ledger.release(claim) is held

    @rule(key=keys, fence=st.integers(1, 4), fingerprint=fingerprints, embedded=small)
    def adopt(self, key: str, fence: int, fingerprint: str, embedded: int) -> None:
        fence += (self.epoch - 1) * 1_000_000
        adopts(
            self.ledger,
            key,
            fence=fence,
            fingerprint=fingerprint,
            embedded=embedded,
            rejected=0,
            failed=0,
            tokens=3,
        )

    @rule(some=st.none() | some_keys)
    def retry(self, some: list[str] | None) -> None:
        self.ledger.retry("texts", some)

    @rule(some=some_keys)
    def recompute(self, some: list[str]) -> None:
        self.ledger.recompute("texts", some)

    @rule(fingerprint=fingerprints)
    def change_model(self, fingerprint: str) -> None:
        self.ledger.set_fingerprint("texts", fingerprint)
        self.ledger.mark_stale("texts", fingerprint)

    @rule()
    def stop(self) -> None:
        self.ledger.stop("texts")

    @rule()
    def start_again(self) -> None:
        self.ledger.start_again("texts")

    @rule(key=keys)
    def supersede(self, key: str) -> None:
        self.ledger.add_shards("texts", 1, [], superseded=[key])

    @rule(seconds=st.sampled_from([5, 59, 61]), holder=holders)
    def time_passes(self, seconds: int, holder: object) -> None:
        self.clock.now += seconds
        assert isinstance(holder, type(ME))
        self.ledger.heartbeat(holder)

    @rule()
    def lose_the_ledger(self) -> None:
        self.epoch += 1
        self.ledger.attach("texts", "/out", self.epoch)
        self.plan()

    @invariant()
    def tallies_equal_a_recount(self) -> None:
        rows = self.ledger.shards("texts")
        assert self.ledger.counts("texts") == Counter(row.state for row in rows)
        totals = self.ledger.totals("texts")
        assert totals.shards == len(rows)
        for name in ("embedded", "rejected", "failed", "bytes"):
            assert getattr(totals, name) == sum(getattr(row, name) for row in rows), name
        assert totals.planned == sum(row.records for row in rows)
        assert totals.tokens == sum(row.tokens or 0 for row in rows)
        pipeline = self.ledger.pipeline("texts")
        assert pipeline is not None
        assert pipeline.planned == totals.planned
        stale = [
            row for row in rows
            if pipeline.fingerprint and row.fingerprint and row.fingerprint != pipeline.fingerprint
        ]  # fmt: skip
        assert totals.stale_shards == len(stale)

    @invariant()
    def fences_never_fall(self) -> None:
        for row in self.ledger.shards("texts", superseded=True):
            assert row.fence >= self.fences.get(row.key, 0)
            self.fences[row.key] = row.fence

    @invariant()
    def one_claim_a_shard_and_holders_are_known(self) -> None:
        held = Counter(claim.shard for claim in self.claims if holds(self.ledger, claim))
        assert all(number == 1 for number in held.values())
        for row in self.ledger.shards("texts", superseded=True):
            assert (row.holder is not None) == (row.key in held)
            assert row.attempt >= 0

    @invariant()
    def pictures_are_owed_for_collected_shards_alone(self) -> None:
        assert {row.key for row in self.ledger.unpictured(10)} == {
            row.key for row in self.ledger.shards("texts", states=[State.COLLECTED])
        }


AnyOrder.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.pytestmark = [pytest.mark.timeout(1800)]  # making a failure small takes minutes


def test_on_postgresql(postgresql_server: str, postgresql_template: str) -> None:
    """Every verb speaks that database's SQL too."""

    class OnPostgreSQL(AnyOrder):
        def database(self) -> AbstractContextManager[str]:
            return postgresql_database(postgresql_server, postgresql_template)

    few = settings(
        max_examples=4, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(OnPostgreSQL, settings=few)
