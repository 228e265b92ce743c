"""Receipts are as many as a process has transactions at once; those of writers that are no more go."""

import os
import threading
from collections.abc import Callable

import sqlalchemy as sa

from batch_assets.ledger.database import Database
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.receipts import borrowed_name
from batch_assets.ledger.schema import receipts
from batch_assets_tests.ledger.helpers import ME
from batch_assets_tests.waiting import PATIENCE_SECONDS

Opened = Callable[..., Ledger]


def writers(ledger: Ledger) -> list[str]:
    with ledger._database.read() as connection:
        return list(connection.scalars(sa.select(receipts.c.writer).order_by(receipts.c.at)))


def test_threads_and_ledgers_that_follow_each_other_leave_one(postgresql_url: str, opened: Opened) -> None:
    for name in ("heartbeat", "shards_0", "shards_0"):
        ledger = opened(postgresql_url)  # as each tick of a sensor does
        ledger.heartbeat(ME)
        thread = threading.Thread(target=ledger.heartbeat, args=(ME,), name=name)
        thread.start()
        thread.join(PATIENCE_SECONDS)
    assert len(writers(ledger)) == 1


def test_two_transactions_at_once_have_two_names_whatever_their_threads_are_called() -> None:
    with borrowed_name() as one, borrowed_name() as other:
        assert one != other
    with borrowed_name() as again:
        assert again in {one, other}


def test_a_child_writes_under_no_name_of_its_parent() -> None:
    with borrowed_name() as name:
        pass
    child = os.fork()
    if child == 0:
        try:
            with borrowed_name() as own:
                os._exit(0 if own.partition("-")[0] != name.partition("-")[0] else 1)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_process_tidies_up_once(postgresql_url: str, opened: Opened) -> None:
    def leave_old(writer: str) -> None:
        with Database(postgresql_url).write() as connection:  # it leaves none of its own
            connection.execute(sa.insert(receipts).values(writer=writer, receipt="", at=0.0))

    leave_old("before")
    ledger = opened(postgresql_url)
    ledger.heartbeat(ME)
    assert len(writers(ledger)) == 1
    leave_old("after")
    opened(postgresql_url).heartbeat(ME)
    assert writers(ledger)[0] == "after", "that is for the next process"
