"""Orders become runs: one at a time for a pipeline, each order once, whatever becomes of the runs and the servers."""

import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from batch_assets.ledger.database import LedgerAway
from batch_assets.ledger.holder import Holder
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.triggers import TriggerState, start_lease
from batch_assets.notifications.base import Notification
from batch_assets.notifications.events import publishing_blocked
from batch_assets.server import child, starter
from batch_assets.server.child import Child
from batch_assets.server.starter import Starter
from batch_assets_tests.waiting import PATIENCE_SECONDS, wait_until

# In place of the command: notes that it began, waits until it may end, and ends as its pipeline's name says.
RUN = """
import os, pathlib, sys, time
_, verb, pipeline, folder = sys.argv
assert verb == "run" and "BATCH_ASSETS_TOKEN" not in os.environ
with open(f"{folder}/{pipeline}.runs", "a") as runs:
    runs.write("x")
while not pathlib.Path(folder, f"{pipeline}.go").exists():
    time.sleep(0.01)
print("accounting: planned=1 embedded=1 rejected=0 failed=0")
print(f"error: {pipeline} has ended", file=sys.stderr)
sys.exit(int(pipeline.removeprefix("code")))
"""


@dataclass
class Inbox:
    target: str = "inbox"
    got: list[Notification] = field(default_factory=list)

    def send(self, notification: Notification) -> None:
        self.got.append(notification)


@dataclass
class Office:
    """A ledger and a folder in which runs leave their traces."""

    folder: Path
    ledger: Ledger
    inbox: Inbox = field(default_factory=Inbox)

    def starter(self) -> Starter:
        return Starter(self.ledger, [self.inbox], [str(self.folder)], self.folder / "logs")

    def order(self, pipeline: str, key: str) -> None:
        self.ledger.open_trigger(pipeline, key, "webhook")

    def runs(self, pipeline: str) -> int:
        file = self.folder / f"{pipeline}.runs"
        return len(file.read_text()) if file.exists() else 0

    def go(self, pipeline: str) -> None:
        (self.folder / f"{pipeline}.go").touch()

    def state(self, pipeline: str, key: str) -> tuple[str, str | None]:
        row = self.ledger.trigger(pipeline, key)
        assert row is not None
        return row.state.value, row.message


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    monkeypatch.setattr(child, "COMMAND", (sys.executable, "-S", "-c", RUN))
    monkeypatch.setattr(starter, "LOOK_AT_LEDGER_SECONDS", 0.05)
    monkeypatch.setenv("BATCH_ASSETS_TOKEN", "secret")
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    yield Office(tmp_path, ledger)
    ledger.dispose()


def test_an_exit_code_says_how_an_order_has_ended(office: Office) -> None:
    office.ledger.attach("code5", str(office.folder), 1)
    row = office.ledger.pipeline("code5")
    assert row is not None
    assert office.ledger.notice_once(publishing_blocked("code5", row.revision, "no").key)
    codes = (0, 1, 3, 4, 5)
    for code in codes:
        office.order(f"code{code}", "k")
        office.go(f"code{code}")
    with office.starter():  # four at once; the fifth after one of them
        wait_until(lambda: not office.ledger.open_triggers())
    said = [office.state(f"code{code}", "k") for code in codes]
    assert said == [
        ("done", None),
        ("failed", "code1 has ended"),
        ("done", "code3 has ended"),
        ("failed", "code4 has ended"),
        ("failed", "code5 has ended"),
    ]
    # Of a spent budget and of blocked publishing the run itself tells.
    assert [alert.pipeline for alert in office.inbox.got] == ["code1"]


def test_a_run_whose_log_is_gone_holds_up_no_order(office: Office) -> None:
    for pipeline in ("code1", "code4"):
        office.order(pipeline, "k")
    with office.starter():
        wait_until(lambda: office.runs("code1") + office.runs("code4") == 2)
        for log in office.folder.rglob("code1.log"):
            log.unlink()
        for pipeline in ("code1", "code4"):
            office.go(pipeline)
        wait_until(lambda: not office.ledger.open_triggers())
    state, message = office.state("code1", "k")
    assert (state, "cannot be read" in str(message)) == ("failed", True)
    assert office.state("code4", "k") == ("failed", "code4 has ended")


def test_of_two_servers_one_runs_and_what_comes_meanwhile_runs_after_it_together(office: Office) -> None:
    office.order("code0", "first")
    with office.starter() as one, office.starter() as other:
        wait_until(lambda: office.runs("code0") == 1)
        for key in ("second", "third"):
            office.order("code0", key)
            one.ordered()
            other.ordered()
        assert office.state("code0", "second")[0] == "waiting"
        office.go("code0")
        wait_until(lambda: office.state("code0", "first")[0] == "done")
        one.ordered()
        other.ordered()
        wait_until(lambda: not office.ledger.open_triggers())
    assert office.runs("code0") == 2


@pytest.mark.parametrize("handling", [signal.SIG_IGN, signal.default_int_handler], ids=["ignored", "handled"])
def test_a_server_that_ends_leaves_its_orders_to_the_next(
    office: Office, handling: Any, monkeypatch: pytest.MonkeyPatch, interruptible: None
) -> None:
    """Its run is interrupted, not killed, also where the server was started in the background."""
    signal.signal(signal.SIGINT, handling)
    killed: list[Child] = []
    monkeypatch.setattr(starter, "END_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(Child, "kill", killed.append)
    office.order("code0", "k")
    with office.starter():
        wait_until(lambda: office.runs("code0") == 1)
    assert killed == []
    assert office.state("code0", "k") == ("waiting", None)
    assert office.ledger.lease_holder(start_lease("code0")) is None
    # One that was killed leaves it running.
    office.ledger.begin_triggers("code0", ["k"])
    office.go("code0")
    with office.starter():
        wait_until(lambda: office.state("code0", "k")[0] == TriggerState.DONE)
    assert office.runs("code0") == 2


def test_a_lease_that_could_not_be_given_back_is_so_before_the_next_start(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no room")

    def away(*_: object) -> None:
        raise LedgerAway("ledger: away")

    monkeypatch.setattr(Child, "start", full)
    office.order("code0", "k")
    server = office.starter()
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "release_lease", away)
        with pytest.raises(OSError, match="no room"):
            server._start("code0")
    assert office.ledger.lease_holder(start_lease("code0")) == Holder.current()
    with pytest.raises(OSError, match="no room"):
        server._start("code0")
    assert office.ledger.lease_holder(start_lease("code0")) is None
