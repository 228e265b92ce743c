"""How the ledger's database is waited for, and which of its errors pass by themselves.

A database may be restarted, fail over to another machine, or have its one writer's place taken:
what is to be written then waits, and is said when the database is back.
"""

import sqlite3
from collections.abc import Callable
from typing import Any

import tenacity
from sqlalchemy.exc import DBAPIError, OperationalError

from batch_assets.retry_policy import (
    AWAY_SECONDS,
    DATABASE_FIRST_PAUSE_SECONDS,
    DATABASE_LONGEST_PAUSE_SECONDS,
    FIRST_ANSWER_SECONDS,
)

PATIENCE_SECONDS = AWAY_SECONDS
OPENING_SECONDS = FIRST_ANSWER_SECONDS
"""For a database that has never answered to this process: its URL may be wrong."""
LOCAL = "use a DAGSTER_HOME on a local disk, or a ledger on PostgreSQL (BATCH_ASSETS_LEDGER_URL)"
# PostgreSQL: ended by an administrator or a crash, not to be connected to now, too many connections.
_PASSING = {"57P01", "57P02", "57P03", "53300"}
# What connecting says, which has no code: whoever starts again, or has all its places taken.
_STARTING = ("starting up", "shutting down", "recovery", "not yet accepting", "too many clients",
             "connection slots", "Connection refused", "No such file", "closed the connection")  # fmt: skip


def tries(
    limit: Callable[[], float], passes: Callable[[BaseException], bool], **told: Any
) -> tenacity.Retrying:
    """Tries with pauses of random lengths, until one succeeds, fails for good, or `limit` seconds are over."""
    return tenacity.Retrying(
        stop=lambda state: (state.seconds_since_start or 0.0) >= limit(),
        wait=tenacity.wait_random_exponential(
            multiplier=DATABASE_FIRST_PAUSE_SECONDS, max=DATABASE_LONGEST_PAUSE_SECONDS
        ),
        retry=tenacity.retry_if_exception(passes),
        reraise=True,
        **told,
    )


def passes(error: BaseException) -> bool:
    """Whether it may be better in a moment: another process has SQLite's file, or PostgreSQL is away."""
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return is_busy(error.orig)
    return error.connection_invalidated or _code(error) in _PASSING or could_not_connect(error)


def could_not_connect(error: DBAPIError) -> bool:
    """Whether this is PostgreSQL's answer, or the network's, to an attempt to connect."""
    return isinstance(error, OperationalError) and _code(error) is None


def is_starting(error: DBAPIError) -> bool:
    """Whether a database that could not be connected to seems to be there, though not now."""
    return any(words in str(error.orig) for words in _STARTING)


def is_busy(error: object) -> bool:
    """Another process has SQLite's file; codes beside BUSY and LOCKED carry them in their low byte."""
    if not isinstance(error, sqlite3.OperationalError):
        return False
    return (error.sqlite_errorcode & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def remedy(error: BaseException) -> str | None:
    """What helps against this one, where that is known."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_PROTOCOL or code & 0xFF == sqlite3.SQLITE_IOERR:
        return f"check the disk; where it is on a network, {LOCAL}"
    return None


def _code(error: DBAPIError) -> str | None:
    return getattr(error.orig, "pgcode", None)
