"""The ledger: the truth about every shard of every pipeline, in one database.

This class only puts the parts together; each part is a file: `planning`, `files`, `moves`, `adopting`,
`claims`, `leases`, `reading`; and for jobs at a service `queue`, `submissions`, `children`, `recovery`, `jobs`,
`money`, `breakers`, `scopes`, `notices`; and `triggers`, `retiring`. All writes are short transactions, safe among
many processes.
"""

from collections.abc import Callable

from batch_assets.errors import ConfigurationError, LedgerError
from batch_assets.ledger.adopting import Adopting
from batch_assets.ledger.breakers import Breakers
from batch_assets.ledger.children import Children
from batch_assets.ledger.claims import Claims
from batch_assets.ledger.database import Database, LedgerAway
from batch_assets.ledger.files import Files
from batch_assets.ledger.jobs import Jobs
from batch_assets.ledger.leases import Leases
from batch_assets.ledger.migrations import migrate
from batch_assets.ledger.money import Accounts
from batch_assets.ledger.moves import Moves
from batch_assets.ledger.notices import Notices
from batch_assets.ledger.planning import Planning
from batch_assets.ledger.queue import Queue
from batch_assets.ledger.reading import Reading
from batch_assets.ledger.recovery import Recovery
from batch_assets.ledger.retiring import Retiring
from batch_assets.ledger.scopes import Scopes
from batch_assets.ledger.submissions import Submissions
from batch_assets.ledger.triggers import Triggers
from batch_assets.ledger.urls import is_writable


class Ledger(
    Planning,
    Files,
    Moves,
    Adopting,
    Claims,
    Leases,
    Reading,
    Queue,
    Submissions,
    Children,
    Recovery,
    Retiring,
    Jobs,
    Accounts,
    Breakers,
    Scopes,
    Notices,
    Triggers,
):
    """What became of every shard. Threads may share one; processes open their own."""

    @classmethod
    def open(cls, url: str, *, clock: Callable[[], float] | None = None) -> "Ledger":
        """Open the ledger at `url` (sqlite:////folder/ledger.db, postgresql://…), and bring it up to date.

        The folder of a SQLite file is made. ConfigurationError where it cannot be opened,
        LedgerAway where it was waited for in vain. `clock` gives unix seconds, by which leases
        expire: by default the database server's, or else this machine's.
        """
        database = _migrated(Database(url))
        database.keep_receipts()
        ledger = cls(database, clock or database.now)
        ledger.shorten_leases()
        return ledger

    @classmethod
    def look(cls, url: str) -> "Ledger":
        """Open the ledger at `url` to read it alone: nothing is made, and it may lie where nothing can be written.

        One that nobody has made yet is empty. ConfigurationError where it cannot be read.
        """
        if is_writable(url):
            return cls.open(url)
        database = _migrated(Database(url, read_only=True))
        return cls(database, database.now)

    @property
    def url_shown(self) -> str:
        """The URL with its password hidden, for people."""
        return self._database.url_shown

    def dispose(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._database.dispose()


def _migrated(database: Database) -> Database:
    """The same, brought up to date. Raises LedgerAway, or ConfigurationError where that cannot be done."""
    try:
        migrate(database)
    except LedgerAway:
        raise
    except LedgerError as error:
        raise ConfigurationError(str(error)) from error
    return database
