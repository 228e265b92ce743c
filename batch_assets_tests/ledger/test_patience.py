"""A database that is away for a moment: waited for, nothing lost, nothing done twice, and one sentence in the end."""

import ast
import inspect
import signal
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from batch_assets.errors import LedgerError
from batch_assets.ledger import database, engines, patience
from batch_assets.ledger import ledger as ledger_module
from batch_assets.ledger.database import LedgerAway, TransactionLost
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets.ledger.store import Store, repeatable
from batch_assets.patience import in_a_tick
from batch_assets.retry_policy import TICK_SECONDS
from batch_assets_tests import pauses
from batch_assets_tests.ledger.conftest import Passing
from batch_assets_tests.ledger.helpers import DONE, ELSEWHERE, KEYS, ME, claimed, holds, make_ready, planned
from batch_assets_tests.ledger.postgres import Server
from batch_assets_tests.waiting import PATIENCE_SECONDS, wait_until

KEY = KEYS[0]
Opened = Callable[..., Ledger]


@pytest.fixture
def ledger(postgresql_url: str, opened: Opened) -> Ledger:
    return planned(opened(postgresql_url))


def time_is_up(passing: Passing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of a pause: it was the last one."""
    passing.pass_by(600.0)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 1e-9)


def test_a_killed_server_is_waited_for_and_claims_are_kept(
    mortal_postgresql_server: Server, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    server = mortal_postgresql_server
    ledger = planned(opened(server.url))
    claim = claimed(ledger, holder=ELSEWHERE)
    server.end(signal.SIGKILL)
    with ThreadPoolExecutor(3) as pool:
        beat = pool.submit(ledger.heartbeat, ELSEWHERE)
        moved = pool.submit(ledger.move, "texts", KEYS[1:], [State.PLANNED], State.PREPARED)
        counted = pool.submit(ledger.counts, "texts")
        wait_until(lambda: "waiting for it, at most 300 seconds" in caplog.text)
        assert not (beat.done() or moved.done() or counted.done())
        server.start()
        assert beat.result(PATIENCE_SECONDS) == 1
        assert moved.result(PATIENCE_SECONDS) == KEYS[1:]
        assert sum(counted.result(PATIENCE_SECONDS).values()) == len(KEYS)
    assert "answers again" in caplog.text
    assert holds(ledger, claim)
    assert ledger.finish(claim, **DONE)


def test_a_server_that_stays_away_is_given_up_in_a_sentence(
    mortal_postgresql_server: Server, opened: Opened, passing: Passing, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = mortal_postgresql_server
    ledger = planned(opened(server.url))
    server.end()

    monkeypatch.setattr(database, "pause", lambda _: time_is_up(passing, monkeypatch))
    with pytest.raises(LedgerAway, match=r"ledger postgresql.*, for 600 seconds; start it again") as caught:
        ledger.heartbeat(ME)
    assert "sqlalche.me" not in str(caught.value)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(database, "pause", lambda _: pytest.fail("it is asked more than once"))
    with pytest.raises(LedgerAway, match=r"ledger postgresql[^;]* failed: [^;,]*; start it again"):
        ledger.counts("texts")
    monkeypatch.undo()
    server.start()
    assert ledger.counts("texts") == {State.PLANNED: len(KEYS)}


class Adding(Store):
    """Two changes in one transaction, with something between them."""

    between: Callable[[sa.Connection], object]
    tries = 0

    @repeatable
    def change(self) -> int:
        self.tries += 1
        with self._database.write() as connection:
            before = connection.exec_driver_sql("SELECT sum(records) FROM ledger_shards").scalar_one()
            connection.exec_driver_sql("UPDATE ledger_shards SET records = records + 1")
            if self.tries == 1:
                self.between(connection)
            connection.exec_driver_sql("UPDATE ledger_shards SET records = records + 1")
            return int(before)


def test_what_is_lost_in_the_middle_of_a_transaction_is_done_again_once(
    ledger: Ledger, postgresql_url: str
) -> None:
    def end(connection: sa.Connection) -> None:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        other = psycopg2.connect(postgresql_url)
        other.autocommit = True
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 300000)", [pid])
        other.close()

    adding = Adding(ledger._database, ledger.now)
    adding.between = end
    assert adding.change() == 100 * len(KEYS)
    assert adding.tries == 2
    assert ledger.totals("texts").planned == 100 * len(KEYS)  # the tallies, which nothing here has changed
    assert [row.records for row in ledger.shards("texts")] == [102] * len(KEYS)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "lost"])
def test_a_commit_without_an_answer(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
    """Whether it was kept is asked: what was is not done twice, and what was not is done again."""
    make_ready(ledger)
    commit, lost = sa.Connection.commit, list[bool]()

    def unanswered(connection: sa.Connection) -> None:
        if lost:
            return commit(connection)
        lost.append(True)
        if kept:
            commit(connection)
        gone = psycopg2.OperationalError("server closed the connection unexpectedly")
        connection.invalidate()
        raise OperationalError("COMMIT", {}, gone, connection_invalidated=True)

    monkeypatch.setattr(sa.Connection, "commit", unanswered)
    claim = ledger.claim("texts", KEY, ME)
    assert claim is not None
    assert (claim.fence, claim.attempt) == (1, 1)
    assert holds(ledger, claim)
    lost.clear()
    assert ledger.lease("merge:texts", ME) == 1
    lost.clear()
    assert ledger.finish(claim, **DONE)
    assert ledger.totals("texts").embedded == DONE["embedded"]


def test_what_a_database_refuses_is_said_in_a_sentence(ledger: Ledger, postgresql_url: str) -> None:
    connection = psycopg2.connect(postgresql_url)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE ledger_leases RENAME TO elsewhere")
    connection.commit()
    connection.close()
    with pytest.raises(
        LedgerError, match=r'^ledger postgresql.*relation "ledger_leases" does not exist'
    ) as caught:
        ledger.lease("merge:a-secret", ME)
    assert not any(said in str(caught.value) for said in ("sqlalche.me", "\n", "[SQL", "LINE 1", "a-secret"))


def locked_by_another(folder: Path) -> sqlite3.Connection:
    other = sqlite3.connect(folder / "ledger.db", check_same_thread=False, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


def test_sqlite_locked_by_another_is_waited_for_by_writers(
    tmp_path: Path,
    opened: Opened,
    passing: Passing,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(engines, "BUSY_SECONDS", 0.01)
    ledger = planned(opened(f"sqlite:///{tmp_path}/ledger.db"))
    other = locked_by_another(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        moved = pool.submit(ledger.move, "texts", [KEY], [State.PLANNED], State.PREPARED)
        wait_until(lambda: "database is locked; waiting for it" in caplog.text)
        other.execute("ROLLBACK")
        assert moved.result(PATIENCE_SECONDS) == [KEY]
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(database, "pause", lambda _: time_is_up(passing, monkeypatch))
    with pytest.raises(
        LedgerAway, match=r"ledger.db: database is locked, for 600 seconds; .* end who holds it up"
    ):
        ledger.move("texts", [KEYS[1]], [State.PLANNED], State.PREPARED)
    other.close()


@pytest.mark.usefixtures("interruptible")
def test_after_a_ctrl_c_that_ended_a_wait_nothing_more_is_waited_for(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is given back then is asked for once each; where the database is back it is given back."""
    monkeypatch.setattr(engines, "BUSY_SECONDS", 0.01)
    ledger = planned(opened(f"sqlite:///{tmp_path}/ledger.db"))
    claim = claimed(ledger)
    other = locked_by_another(tmp_path)
    monkeypatch.setattr(database, "pause", lambda _: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        ledger.heartbeat(ME)
    monkeypatch.setattr(database, "pause", lambda _: pytest.fail("it is waited for"))
    with pytest.raises(LedgerAway, match="database is locked; "):
        ledger.release(claim)
    other.close()
    ledger.release(claim)
    assert not holds(ledger, claim)


class Losing(Store):
    """A database that loses every transaction."""

    @repeatable
    def change(self) -> None:
        raise TransactionLost("lost in the middle")


@pytest.mark.parametrize("lost", [False, True], ids=["away", "lost"])
def test_in_a_tick_the_ledger_is_waited_for_as_shortly_as_all_else(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    """And whoever is in none, in the same process, waits as ever."""
    monkeypatch.setattr(engines, "BUSY_SECONDS", 0.01)
    ledger = planned(opened(f"sqlite:///{tmp_path}/ledger.db"))
    other = locked_by_another(tmp_path)
    change = Losing(ledger._database, ledger.now).change if lost else lambda: ledger.heartbeat(ME)
    with pauses.skipping(lambda: None):
        before = pauses.skipped_seconds()
        with in_a_tick(), pytest.raises(LedgerAway):
            change()
        assert pauses.skipped_seconds() - before < TICK_SECONDS + 1  # a pause is a second at most
        with pytest.raises(LedgerAway):
            change()
        assert pauses.skipped_seconds() - before > patience.PATIENCE_SECONDS / 2
    other.close()


def test_a_new_process_waits_for_a_server_that_starts() -> None:
    starting = psycopg2.OperationalError("FATAL:  the database system is starting up\n")
    wrong = psycopg2.OperationalError('FATAL:  password authentication failed for user "me"\n')
    assert patience.is_starting(OperationalError("", {}, starting))
    assert not patience.is_starting(OperationalError("", {}, wrong))


def test_every_transaction_is_repeatable() -> None:
    """One that a database loses in the middle would else end the command that it is of."""
    folder = Path(inspect.getfile(ledger_module)).parent
    missing = []
    for file in sorted(folder.glob("*.py")):
        tree = ast.parse(file.read_bytes())
        methods = [node for kind in ast.walk(tree) if isinstance(kind, ast.ClassDef) for node in kind.body]
        for method in methods:
            if isinstance(method, ast.FunctionDef) and "self._database." in ast.unparse(method):
                marks = [ast.unparse(mark) for mark in method.decorator_list]
                missing += [] if "repeatable" in marks else [f"{file.name}: {method.name}"]
    assert missing == ["ledger.py: url_shown", "ledger.py: dispose", "store.py: _judged_at"]
