"""Connections to the ledger's database, SQLite or PostgreSQL: one writer at a time, many readers.

What is read and written belongs to the modules beside this one. Writers queue up on both
databases (BEGIN IMMEDIATE, an advisory lock), so that a transaction never sees rows move under
it, locks are never taken crosswise, and revisions become visible in their own order.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, OperationalError

from batch_assets.errors import BatchAssetsError, ConfigurationError
from batch_assets.ledger.shielding import shielded

BUSY_SECONDS = 30.0
PATIENCE_SECONDS = 300.0
_ADVISORY_LOCK = 0x62617463685F6173  # "batch_as": one number for all ledgers of a database


class Database:
    """One database by URL. Threads may share it; after a fork the child gets its own connections."""

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        """Raises ConfigurationError for a URL that can never work; connects to nothing yet.

        `read_only` leaves the SQLite file as it is, its journal mode too, and makes none.
        """
        parsed = _parse(url)
        self.url_shown = _without_password(parsed)
        self._secrets = [secret for secret in (parsed.password, parsed.query.get("password")) if secret]
        self._sqlite = parsed.get_backend_name() == "sqlite"
        try:
            if not self._sqlite:
                self._engine = _postgresql_engine(parsed)
            else:
                self._engine = _sqlite_reader(parsed) if read_only else _sqlite_engine(parsed)
        except OSError as error:
            raise self.unusable(error) from None
        except ModuleNotFoundError:
            raise ConfigurationError(
                f"ledger {self.url_shown}: PostgreSQL needs psycopg2; "
                "install it with pip install 'batch-assets[postgres]'"
            ) from None
        # The same pool; the option tells the begin event which BEGIN to send.
        self._writer = self._engine.execution_options(ledger_write=True)
        self._pid = os.getpid()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that only reads; it waits for no writer."""
        self._leave_parents_connections()
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that no other writer overlaps; committed at the end, or undone by an exception.

        Signals wait for its end: none leaves the lock behind.
        """
        self._leave_parents_connections()
        with shielded() as came, ExitStack() as stack:
            connection = self._begin_write(stack, came)
            if not self._sqlite:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
            yield connection

    def _begin_write(self, stack: ExitStack, came: list[int]) -> sa.Connection:
        """Begin, however long other processes take their turns: SQLite's own waiting is not fair."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return stack.enter_context(self._writer.begin())
            except OperationalError as error:
                if not _is_busy(error.orig):
                    raise
                if came:
                    raise KeyboardInterrupt from error
                if time.monotonic() > deadline:
                    raise BatchAssetsError(
                        f"ledger {self.url_shown}: locked by another process for "
                        f"{PATIENCE_SECONDS:.0f} seconds; end that process, or go on where it is not stopped"
                    ) from error
                time.sleep(0.02)

    def unusable(self, error: BaseException) -> ConfigurationError:
        """A person's sentence for a database that cannot be opened, without its password."""
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        for secret in self._secrets:
            reason = reason.replace(str(secret), "***")
        return ConfigurationError(
            f"ledger {self.url_shown}: cannot be opened: {reason}; "
            "correct BATCH_ASSETS_LEDGER_URL, or what it points to"
        )

    def dispose(self) -> None:
        """Close every connection that is not in use."""
        self._engine.dispose()

    def _leave_parents_connections(self) -> None:
        if self._pid != os.getpid():
            # They are the parent's too: forgotten here, not closed.
            self._engine.dispose(close=False)
            self._pid = os.getpid()


def _parse(url: str) -> sa.URL:
    how = (
        "write sqlite:////folder/ledger.db (an absolute path has four slashes) "
        "or postgresql://user:password@host/database"
    )
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        # The text itself may hold a password: not repeated.
        raise ConfigurationError(f"the ledger's URL cannot be read; {how}") from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg2")
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg2"):
        raise ConfigurationError(
            f"ledger {_without_password(parsed)}: {parsed.drivername!r} is unknown; {how}"
        )
    if parsed.get_backend_name() == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise ConfigurationError(f"ledger {url}: a ledger in memory would forget everything; {how}")
        # Absolute, so that changing the working directory later does not change the ledger.
        parsed = parsed.set(database=str(Path(str(parsed.database)).absolute()))
    return parsed


def is_there(url: str) -> bool:
    """Whether there may be a ledger at `url`: False where it is a SQLite file that nobody has made yet.

    Raises ConfigurationError for a URL that can never work.
    """
    parsed = _parse(url)
    return parsed.get_backend_name() != "sqlite" or Path(str(parsed.database)).exists()


def without_password(url: str) -> str:
    """A ledger's URL as it may be shown; one that cannot be read is not repeated, for it may hold a password."""
    try:
        return _without_password(sa.make_url(url))
    except (ArgumentError, ValueError):
        return "(a URL that cannot be read)"


def _without_password(url: sa.URL) -> str:
    return url.difference_update_query(["password"]).render_as_string(hide_password=True)


def _is_busy(error: object) -> bool:
    """Another process has the file; codes beside BUSY and LOCKED carry them in their low byte."""
    if not isinstance(error, sqlite3.OperationalError):
        return False
    return (error.sqlite_errorcode & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _sqlite_reader(url: sa.URL) -> sa.Engine:
    uri = Path(str(url.database)).as_uri() + "?mode=ro"
    return sa.create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS))


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself; _begin_sqlite does
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            # Changing the mode fails at once, without waiting, while another process uses the file.
            if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("ledger_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _postgresql_engine(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(
        url,
        # Each statement sees what was committed before it, so what follows the lock is fresh.
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        connect_args={"connect_timeout": 10, "application_name": "batch-assets"},
    )
    event.listen(engine, "connect", _prepare_postgresql)
    return engine


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    # A process stopped inside a transaction must not hold all the others up for ever.
    with connection.cursor() as cursor:
        cursor.execute("SET idle_in_transaction_session_timeout = '60s'")
    connection.commit()
