"""Connecting to SQLite and PostgreSQL: how each is told to begin a transaction, and what to wait for.

What a transaction is, and what becomes of one that a database has lost, is in `database.py`.
"""

import contextlib
import fcntl
import os
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from batch_assets.errors import ConfigurationError
from batch_assets.ledger.patience import LOCAL, is_busy
from batch_assets.ledger.urls import shown
from batch_assets.retry_policy import BUSY_SECONDS

# A server that has vanished with its machine is found out in about a minute, not in hours.
_KEPT_ALIVE = {
    "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000,
}  # fmt: skip


def make_engine(url: sa.URL, *, read_only: bool) -> sa.Engine:
    """An engine for the database at `url`, which `parse_url` has read; connects to nothing yet."""
    if url.get_backend_name() != "sqlite":
        return _postgresql_engine(url)
    return _sqlite_reader(url) if read_only else _sqlite_engine(url)


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    folder = Path(str(url.database)).parent
    folder.mkdir(parents=True, exist_ok=True)
    _demand_locks(folder)
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _demand_locks(folder: Path) -> None:
    """Raise ConfigurationError where the file system has no locks: SQLite would say that others have them all."""
    with contextlib.suppress(PermissionError), tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigurationError(
                f"ledger {folder}: its file system has no locks ({os.strerror(error.errno or 0)}); {LOCAL}"
            ) from error


def _sqlite_reader(url: sa.URL) -> sa.Engine:
    file = Path(str(url.database))
    if not file.exists():  # an empty one, in memory, for all threads
        return sa.create_engine(
            "sqlite://", poolclass=sa.StaticPool, connect_args={"check_same_thread": False}
        )
    uri = file.as_uri() + "?mode=ro"
    # SQLite keeps two more files beside it while anybody has it open: where it can neither find nor make them, nobody.
    if not os.access(file.parent, os.W_OK) and not file.with_name(file.name + "-wal").exists():
        uri += "&immutable=1"
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
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("ledger_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _postgresql_engine(url: sa.URL) -> sa.Engine:
    try:
        engine = sa.create_engine(
            url,
            # Each statement sees what was committed before it, so what follows the lock is fresh.
            isolation_level="READ COMMITTED",
            pool_pre_ping=True,
            connect_args={"connect_timeout": 10, "application_name": "batch-assets", **_KEPT_ALIVE},
        )
    except ModuleNotFoundError:
        raise ConfigurationError(
            f"ledger {shown(url)}: PostgreSQL needs psycopg2; "
            "install it with pip install 'batch-assets[postgres]'"
        ) from None
    event.listen(engine, "connect", _prepare_postgresql)
    return engine


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    # A process stopped inside a transaction must not hold all the others up for ever.
    with connection.cursor() as cursor:
        cursor.execute("SET idle_in_transaction_session_timeout = '60s'")
    connection.commit()
