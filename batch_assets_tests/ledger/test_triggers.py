"""Orders to start a pipeline: each key once, moved by compare-and-set, and remembered."""

import threading
from collections.abc import Callable

from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.triggers import KEPT_SECONDS, TriggerRow, TriggerState
from batch_assets_tests.ledger.conftest import Clock
from batch_assets_tests.ledger.helpers import both_databases


def test_an_order_lives_once(ledger: Ledger, clock: Clock) -> None:
    row, created = ledger.open_trigger("texts", "key 1", "webhook")
    assert (created, row.state, row.at) == (True, TriggerState.WAITING, clock.now)
    clock.now += 5
    assert ledger.open_trigger("texts", "key 1", "schedule") == (row, False)
    assert ledger.open_trigger("images", "key 1", "webhook")[1], "a key is a pipeline's own"
    assert ledger.begin_triggers("texts", ["key 1", "unknown"]) == 1
    assert ledger.begin_triggers("texts", ["key 1"]) == 0
    assert ledger.put_back_triggers("texts", ["key 1"]) == 1
    assert ledger.has_open_trigger("texts")
    assert ledger.close_trigger("texts", "key 1", TriggerState.FAILED, "no\x00 \ud800model")
    assert not ledger.close_trigger("texts", "key 1", TriggerState.DONE)
    found = ledger.trigger("texts", "key 1")
    assert found is not None
    assert (found.state, found.message) == (TriggerState.FAILED, "no\ufffd ?model")
    assert ledger.open_trigger("texts", "key 1", "webhook") == (found, False)
    assert not ledger.has_open_trigger("texts")
    assert ledger.trigger("texts", "key 2") is None


def test_open_orders_come_oldest_first_and_a_schedules_old_ones_go(ledger: Ledger, clock: Clock) -> None:
    for key, origin in (("b", "schedule"), ("a", "webhook"), ("c", "schedule")):
        clock.now += 1
        ledger.open_trigger("texts", key, origin)
    assert [row.key for row in ledger.open_triggers()] == ["b", "a", "c"]
    assert [row.key for row in ledger.open_triggers("texts", "webhook")] == ["a"]
    assert ledger.open_triggers("images") == []
    for key in ("a", "b"):
        ledger.close_trigger("texts", key, TriggerState.DONE)
    clock.now += KEPT_SECONDS + 1
    ledger.open_trigger("texts", "d", "schedule")
    kept = [key for key in "abcd" if ledger.trigger("texts", key) is not None]
    assert kept == ["a", "c", "d"], "only what a schedule ordered, and only once it has ended"


@both_databases
def test_of_two_that_race_one_gives_the_order_and_one_ends_it(
    url: str, opened: Callable[..., Ledger]
) -> None:
    ledgers = [opened(url), opened(url)]
    for number in range(10):
        start, given, ended = threading.Barrier(2), list[tuple[TriggerRow, bool]](), list[bool]()

        def race(
            ledger: Ledger,
            key: str = str(number),
            start: threading.Barrier = start,
            given: list[tuple[TriggerRow, bool]] = given,
            ended: list[bool] = ended,
        ) -> None:
            start.wait()
            given.append(ledger.open_trigger("texts", key, "webhook"))
            start.wait()
            ended.append(ledger.close_trigger("texts", key, TriggerState.DONE))

        threads = [threading.Thread(target=race, args=(ledger,)) for ledger in ledgers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(created for _, created in given) == [False, True]
        assert given[0][0] == given[1][0]
        assert sorted(ended) == [False, True]
