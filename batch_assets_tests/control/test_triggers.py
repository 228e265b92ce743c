"""Every way in which an order that the sensors carry out can end; none stays open for ever."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from batch_assets.control.triggers import (
    FORGOTTEN_SECONDS,
    IDLE_SECONDS,
    UNBEGUN_SECONDS,
    forget_orders,
    settle_orders,
)
from batch_assets.ledger.holder import Holder
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets.ledger.triggers import TriggerState, start_lease
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.settings.timing import MergeAtFraction
from batch_assets_tests.orchestration.deployments import make_settings

KEYS = ["g0001-00000", "g0001-00001"]
SOMEBODY = Holder("another-host", "boot", 4711, "1")


@dataclass
class Desk:
    """A ledger with two planned shards and one order that was begun; its time passes by hand."""

    ledger: Ledger
    settings: PipelineSettings
    now: float = 1_000_000.0

    def settle(self, *, at_work: bool = False, **fields: Any) -> tuple[str, str]:
        """(state, message) of the order after a look at it."""
        settle_orders(self.settings.model_copy(update=fields), self.ledger, at_work=at_work)
        row = self.ledger.trigger("texts", "k")
        assert row is not None
        return row.state.value, row.message or ""

    def collect(self, key: str, *, fails: bool = False) -> None:
        """Bring a shard to its end: committed, or given up."""
        ledger = self.ledger
        ledger.move("texts", [key], {State.PLANNED}, State.PREPARED)
        ledger.move("texts", [key], {State.PREPARED}, State.READY)
        claim = ledger.claim("texts", key, SOMEBODY)
        assert claim is not None
        if fails:
            ledger.fail(claim, "the text is cursed", max_attempts=0)
        else:
            assert ledger.finish(claim, fingerprint="f", embedded=4, rejected=0, failed=0, tokens=9)

    def publish(self) -> None:
        row = self.ledger.pipeline("texts")
        assert row is not None
        self.ledger.set_merged("texts", row.revision)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made: list[Desk] = []
    url = f"sqlite:///{tmp_path}/ledger.db"
    ledger = Ledger.open(url, clock=lambda: made[0].now if made else Desk.now)
    desk = Desk(ledger, make_settings(tmp_path))
    made.append(desk)
    ledger.attach("texts", str(tmp_path / "out"), 1)
    ledger.add_shards("texts", 1, [(key, number, 4, 100) for number, key in enumerate(KEYS)])
    ledger.open_trigger("texts", "k", "schedule")
    ledger.begin_triggers("texts", ["k"])
    yield desk
    ledger.dispose()


def test_it_is_done_when_all_is_published(desk: Desk) -> None:
    desk.publish()
    assert desk.settle()[0] == "running", "a merge of a part is not the end"
    for key in KEYS:
        desk.collect(key)
    assert desk.settle()[0] == "running"
    desk.publish()
    assert desk.settle() == ("done", "")


def test_shards_that_are_given_up_end_it(desk: Desk) -> None:
    desk.collect(KEYS[0])
    desk.collect(KEYS[1], fails=True)
    for allows in ("any", MergeAtFraction(fraction=0.5)):
        assert desk.settle(merge_when=allows)[0] == "running", "what there is may be merged"
    state, message = desk.settle()
    assert state == "failed"
    assert "1 shards are given up" in message
    assert "g0001-00001: the text is cursed" in message
    assert "`batch-assets retry texts`" in message


def test_an_order_to_stop_ends_it(desk: Desk) -> None:
    desk.ledger.stop("texts")
    assert desk.settle() == ("failed", "the pipeline was stopped; `batch-assets run texts` goes on")


def test_an_hour_in_which_nobody_is_at_it_ends_it(desk: Desk) -> None:
    desk.now += IDLE_SECONDS - 1
    desk.collect(KEYS[0])
    desk.now += 2
    assert desk.settle()[0] == "running", "something was collected since"
    desk.ledger.move("texts", [KEYS[1]], {State.PLANNED}, State.PREPARED)
    desk.ledger.move("texts", [KEYS[1]], {State.PREPARED}, State.READY)
    desk.now += IDLE_SECONDS
    assert desk.settle(at_work=True)[0] == "running", "a run is in the queue"
    claim = desk.ledger.claim("texts", KEYS[1], SOMEBODY)
    assert claim is not None
    assert desk.settle()[0] == "running", "somebody computes"
    desk.ledger.release(claim)
    state, message = desk.settle()
    assert (state, message[:44]) == ("failed", "nothing has moved for an hour: 1 shards wait")


def test_one_that_nobody_can_begin_ends_after_a_day(desk: Desk) -> None:
    desk.ledger.put_back_triggers("texts", ["k"])
    desk.now += UNBEGUN_SECONDS - 1
    assert desk.settle()[0] == "waiting"
    desk.now += 2
    assert desk.settle(at_work=True)[0] == "waiting"
    assert desk.settle()[0] == "failed"


def test_it_is_left_to_a_server_that_answers_for_it(desk: Desk) -> None:
    assert desk.ledger.lease(start_lease("texts"), SOMEBODY, FORGOTTEN_SECONDS * 2) is not None
    desk.ledger.stop("texts")
    desk.now += FORGOTTEN_SECONDS + 1
    forget_orders(desk.ledger, known=[])
    assert desk.settle()[0] == "running"
    desk.ledger.release_lease(start_lease("texts"), SOMEBODY)
    forget_orders(desk.ledger, known=["texts"])
    assert desk.ledger.has_open_trigger("texts")
    forget_orders(desk.ledger, known=[])
    found = desk.ledger.trigger("texts", "k")
    assert found is not None
    assert found.state is TriggerState.FAILED
