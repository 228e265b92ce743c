"""Renewing leases goes on whatever the ledger says meanwhile."""

import threading

import pytest

from batch_assets.control import leases
from batch_assets.ledger.database import LedgerAway
from batch_assets.ledger.holder import Holder
from batch_assets_tests.ledger.helpers import ME
from batch_assets_tests.waiting import PATIENCE_SECONDS


class Away:
    """A ledger that has been waited for in vain a few times, and answers then."""

    def __init__(self) -> None:
        self.asked = 0
        self.answered = threading.Event()

    def heartbeat(self, _: Holder) -> int:
        self.asked += 1
        if self.asked < 4:
            raise LedgerAway("ledger postgresql://somewhere: refused, for 300 seconds; start it again")
        self.answered.set()
        return 1


def test_the_heartbeat_outlives_a_ledger_that_is_away_for_longer_than_it_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And has no words of its own about it: the ledger says so itself, once."""
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.001)
    ledger = Away()
    with leases.heartbeat(ledger, ME):  # type: ignore[arg-type]
        assert ledger.answered.wait(PATIENCE_SECONDS)
    assert caplog.text == ""


class Silent:
    """A ledger that does not answer before it is told to."""

    def __init__(self) -> None:
        self.asked, self.told, self.answered = threading.Event(), threading.Event(), threading.Event()

    def heartbeat(self, _: Holder) -> int:
        self.asked.set()
        self.told.wait(PATIENCE_SECONDS)
        self.answered.set()
        return 0


def test_who_is_told_to_stop_does_not_wait_for_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.001)
    ledger = Silent()
    with leases.heartbeat(ledger, ME):  # type: ignore[arg-type]
        assert ledger.asked.wait(PATIENCE_SECONDS)
    assert not ledger.answered.is_set()
    ledger.told.set()
