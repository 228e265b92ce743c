"""Transactions on the ledger's database, SQLite or PostgreSQL: one writer at a time, many readers.

What is read and written belongs to the modules beside this one. Writers queue up on both
databases (BEGIN IMMEDIATE, an advisory lock), so that a transaction never sees rows move under
it, locks are never taken crosswise, and revisions become visible in their own order. A database
that is away is waited for; what it lost in the middle is for `repeatable` in `store.py`.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
import tenacity
from sqlalchemy.exc import DBAPIError

from batch_assets.errors import ConfigurationError, LedgerError
from batch_assets.ledger import patience
from batch_assets.ledger.engines import make_engine
from batch_assets.ledger.outage import outage_of, steady
from batch_assets.ledger.receipts import Receipt, borrowed_name
from batch_assets.ledger.shielding import shielded
from batch_assets.ledger.urls import parse_url, shown
from batch_assets.patience import pause, seconds_now, ticking
from batch_assets.plain_text import plain_logger

_ADVISORY_LOCK = 0x62617463685F6173  # "batch_as": one number for all ledgers of a database
_SERVER_TIME = "SELECT extract(epoch FROM clock_timestamp())::float8"
_MEND = "mend that, then go on with the same command"
logger = plain_logger(__name__)


class LedgerAway(LedgerError):
    """The database was waited for in vain."""


class TransactionLost(LedgerAway):
    """The database went away in the middle of a transaction, of which it has kept nothing."""


class Database:
    """One database by URL. Threads may share it; after a fork the child gets its own connections."""

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        """Raises ConfigurationError for a URL that can never work; connects to nothing yet.

        `read_only` leaves the SQLite file as it is, its journal mode too, and makes none: what is not there is empty.
        """
        parsed = parse_url(url)
        self.url_shown = shown(parsed)
        self._secrets = [secret for secret in (parsed.password, parsed.query.get("password")) if secret]
        self._sqlite = parsed.get_backend_name() == "sqlite"
        try:
            self._engine = make_engine(parsed, read_only=read_only)
        except OSError as error:
            raise self._unusable(error) from None
        # The same pool; the option tells the begin event which BEGIN to send.
        self._writer = self._engine.execution_options(ledger_write=True)
        self._pid = os.getpid()
        self._keeps_receipts = False
        self.outage = outage_of(self.url_shown)
        self._ahead: float | None = None

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that only reads; it waits for no writer."""
        with self._transaction(self._engine, []) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that no other writer overlaps; committed at the end, or undone by an exception.

        Signals wait for its end: none leaves the lock behind.
        """
        with (
            shielded() as came,
            borrowed_name() as name,
            self._transaction(self._writer, came, name) as connection,
        ):
            yield connection

    def now(self) -> float:
        """Unix seconds: this machine's on SQLite, on PostgreSQL the server's, as it said them last.

        Each write transaction asks it, so that within one they are exact; between two the seconds
        are counted here, by a clock that nobody sets.
        """
        if self._sqlite:
            return time.time()
        if self._ahead is None:
            with self.read() as connection:
                self._set_clock(connection, _SERVER_TIME)
        assert self._ahead is not None
        return steady() + self._ahead

    def keep_receipts(self) -> None:
        """From now on each transaction leaves a receipt: the database has the table for them."""
        self._keeps_receipts = not self._sqlite

    def dispose(self) -> None:
        """Close every connection that is not in use."""
        self._engine.dispose()

    @contextmanager
    def _transaction(
        self, engine: sa.Engine, came: list[int], writer: str | None = None
    ) -> Iterator[sa.Connection]:
        self._leave_parents_connections()
        receipt = Receipt(writer) if writer is not None and self._keeps_receipts else None
        connection = self._begin(engine, came, receipt)
        try:
            # Closed in any case, and undone where it is not committed by then.
            with connection:
                yield connection
                try:
                    connection.commit()
                except DBAPIError as error:
                    if not (patience.passes(error) and self._has_kept(receipt, came)):
                        raise
        except DBAPIError as error:
            if not patience.passes(error):
                raise LedgerError(self._sentence(error, _MEND)) from error.orig
            self.outage.note_away()
            raise TransactionLost(self._sentence(error, _MEND)) from error.orig

    def _begin(self, engine: sa.Engine, came: list[int], receipt: Receipt | None = None) -> sa.Connection:
        """Begin, however long the database is away or other processes take their turns."""
        asked = tried = steady()

        def begun() -> sa.Connection:
            nonlocal tried
            tried = steady()
            return self._begun(engine, receipt)

        def say(state: tenacity.RetryCallState) -> None:
            self.outage.note_away()
            error = state.outcome.exception() if state.outcome is not None else None
            if error is not None and self.outage.begin_telling(tried):
                logger.warning(
                    "ledger %s: %s; waiting for it, at most %.0f seconds",
                    self.url_shown, self.reason(error), self._limit(),
                )  # fmt: skip

        try:
            found = patience.tries(self._limit, self._may_pass, before_sleep=say, sleep=_pause_until(came))(
                begun
            )
        except DBAPIError as error:
            if not self.outage.has_answered:
                raise self._unusable(error) from error.orig
            if not patience.passes(error):
                raise LedgerError(self._sentence(error, _MEND)) from error.orig
            self.outage.note_away()
            waited = f", for {steady() - asked:,.0f} seconds" if self._limit() else ""
            if not ticking():  # who gives up so soon has not waited in vain
                self.outage.given_up = True
            step = "start it again, or end who holds it up, then go on with the same command"
            raise LedgerAway(self._sentence(error, step, waited)) from error.orig
        except BaseException:  # Ctrl-C, termination
            # Whoever is to end gives back what it has, and does not wait for that.
            self.outage.given_up = True
            raise
        if self.outage.note_answer(asked):
            logger.warning("ledger %s: answers again", self.url_shown)
        return found

    def _begun(self, engine: sa.Engine, receipt: Receipt | None) -> sa.Connection:
        connection = engine.connect()
        try:
            connection.begin()
            writes = connection.get_execution_options().get("ledger_write", False)
            if writes and not self._sqlite:
                self._take_turn(connection, receipt)
        except BaseException:
            connection.close()
            raise
        return connection

    def _take_turn(self, connection: sa.Connection, receipt: Receipt | None) -> None:
        """Wait for PostgreSQL's other writers; leave a receipt, and ask for the time, on the same way."""
        left = receipt.statements(self.url_shown) if receipt is not None else []
        lock = f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"
        self._set_clock(connection, "; ".join([lock, *left, _SERVER_TIME]))

    def _has_kept(self, receipt: Receipt | None, came: list[int]) -> bool:
        """Whether a transaction was committed though the answer was lost. Waits for its end at the server."""
        if receipt is None:
            return False

        # Whatever became of it, it holds its turn until then; this one takes the next.
        def look() -> bool:
            with self._begin(self._engine, came) as connection:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
                return connection.exec_driver_sql(receipt.query()).scalar() == receipt.text

        return patience.tries(self._limit, patience.passes, sleep=_pause_until(came))(look)

    def _set_clock(self, connection: sa.Connection, statements: str) -> None:
        """Carry out statements of which the last asks for the time."""
        self._ahead = connection.exec_driver_sql(statements).scalar_one() - steady()

    def _limit(self) -> float:
        """How many seconds to wait now. Who has waited in vain asks once each time, until it is back."""
        if not self.outage.has_answered:
            return seconds_now(patience.OPENING_SECONDS)
        return 0.0 if self.outage.given_up else seconds_now(patience.PATIENCE_SECONDS)

    def _may_pass(self, error: BaseException) -> bool:
        if not patience.passes(error):
            return False
        assert isinstance(error, DBAPIError)
        return self._sqlite or self.outage.has_answered or patience.is_starting(error)

    def _sentence(self, error: DBAPIError, step: str, waited: str = "") -> str:
        return f"ledger {self.url_shown}: {self.reason(error)}{waited}; {patience.remedy(error) or step}"

    def _unusable(self, error: BaseException) -> ConfigurationError:
        """A person's sentence for a database that cannot be opened, without its password."""
        step = patience.remedy(error) or "correct BATCH_ASSETS_LEDGER_URL, or what it points to"
        return ConfigurationError(f"ledger {self.url_shown}: cannot be opened: {self.reason(error)}; {step}")

    def reason(self, error: BaseException) -> str:
        """What the database says, in one line: without SQLAlchemy's links, the statement or its values."""
        said: Any = getattr(error, "orig", None) or error
        # PostgreSQL's own words are apart from the statement that the driver quotes. What could not be connected to
        # has none: there the driver's guesses at the cause are on lines of their own, behind a tab.
        told = getattr(getattr(said, "diag", None), "message_primary", None)
        lines = [told] if told else [line for line in str(said).splitlines() if not line.startswith("\t")]
        reason = " ".join(" ".join(lines).split())
        for secret in self._secrets:
            reason = reason.replace(str(secret), "***")
        return reason

    def _leave_parents_connections(self) -> None:
        if self._pid != os.getpid():
            # They are the parent's too: forgotten here, not closed.
            self._engine.dispose(close=False)
            self._pid = os.getpid()


def _pause_until(came: list[int]) -> Callable[[float], None]:
    """Pause, and end where a signal has come meanwhile that is held back."""

    def pause_and_look(seconds: float) -> None:
        pause(seconds)
        if came:
            raise KeyboardInterrupt

    return pause_and_look
