"""The ledger's URL: which can work, what of it may be shown, and whether there is a file yet.

How a database is connected to by it is in `engines.py`.
"""

import os
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from batch_assets.errors import ConfigurationError


def parse_url(url: str) -> sa.URL:
    """The URL as it is connected to. Raises ConfigurationError for one that can never work."""
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
        raise ConfigurationError(f"ledger {shown(parsed)}: {parsed.drivername!r} is unknown; {how}")
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
    parsed = parse_url(url)
    return parsed.get_backend_name() != "sqlite" or Path(str(parsed.database)).exists()


def is_writable(url: str) -> bool:
    """Whether there is a ledger at `url` that this process may write, as far as its files tell."""
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        return True
    file = Path(str(parsed.database))
    return os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)


def without_password(url: str) -> str:
    """A ledger's URL as it may be shown; one that cannot be read is not repeated, for it may hold a password."""
    try:
        return shown(sa.make_url(url))
    except (ArgumentError, ValueError):
        return "(a URL that cannot be read)"


def shown(url: sa.URL) -> str:
    """The URL as it may be shown: as people write it, without the driver's name."""
    plain = url.set(drivername=url.get_backend_name()).difference_update_query(["password"])
    return plain.render_as_string(hide_password=True)
