"""Ctrl-C in the middle of a transaction: it is committed whole, its lock is free, and then Ctrl-C comes."""

import signal
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from batch_assets.ledger.database import Database

pytestmark = pytest.mark.usefixtures("interruptible")

NUMBERS = "numbers"
WRITE: Any = vars(Database)["write"].__wrapped__


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(f"sqlite:///{tmp_path}/ledger.db")
    with database.write() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {NUMBERS} (number INTEGER)")
    return database


def numbers(database: Database) -> list[int]:
    with database.read() as connection:
        return list(connection.execute(sa.text(f"SELECT number FROM {NUMBERS} ORDER BY number")).scalars())


def interrupted_between(database: Database, error: Exception | None = None) -> None:
    """A transaction of two rows, a Ctrl-C between them, and perhaps an error at its end."""
    with database.write() as connection:
        connection.exec_driver_sql(f"INSERT INTO {NUMBERS} VALUES (1)")
        signal.raise_signal(signal.SIGINT)
        connection.exec_driver_sql(f"INSERT INTO {NUMBERS} VALUES (2)")
        if error is not None:
            raise error


def written(database: Database) -> None:
    with database.write() as connection:
        connection.exec_driver_sql(f"INSERT INTO {NUMBERS} VALUES (3)")


def test_what_is_open_is_committed_first(database: Database) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted_between(database)
    assert numbers(database) == [1, 2]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_undoes_it_and_ctrl_c_comes_all_the_same(database: Database) -> None:
    with pytest.raises(KeyboardInterrupt) as raised:
        interrupted_between(database, ValueError("the transaction's own"))
    assert isinstance(raised.value.__context__, ValueError)
    assert numbers(database) == []


def test_other_threads_write_as_ever(database: Database) -> None:
    thread = threading.Thread(target=written, args=(database,))
    thread.start()
    thread.join()
    assert numbers(database) == [3]


def test_no_lock_is_left_where_nothing_knows_of_it_yet(database: Database) -> None:
    """The worst moment: the transaction is open, and `with` has not heard of it."""

    def interrupt(frame: types.FrameType, event: str, called: Any) -> None:
        if event != "c_return" or called is not next or frame.f_code.co_name != "__enter__":
            return
        if frame.f_locals["self"].gen.gi_code is WRITE.__code__:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)

    sys.setprofile(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt) as raised:
            written(database)
    finally:
        sys.setprofile(None)
    with database.write() as connection:  # at once, though somebody keeps the exception and its frames
        connection.exec_driver_sql(f"INSERT INTO {NUMBERS} VALUES (4)")
    assert numbers(database) == [3, 4]
    assert raised.value.__traceback__ is not None
