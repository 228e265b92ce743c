"""Which pipelines a ledger knows, for those who only look: nothing in the database is changed.

A notebook may have another version of this package than the production whose ledger it asks. So
no step of `migrations.py` is applied here, and a ledger that a newer version wrote is read, too.
"""

import sqlalchemy as sa

from batch_assets.ledger.database import Database
from batch_assets.ledger.schema import pipelines


def known_roots(url: str) -> dict[str, str]:
    """The output root of each pipeline that the ledger at `url` knows, by name; empty where it has no tables yet.

    Raises ConfigurationError where the database cannot be opened, LedgerError where it does not answer.
    """
    database = Database(url, read_only=True)
    try:
        with database.read() as connection:
            if not sa.inspect(connection).has_table(pipelines.name):
                return {}
            # These two columns alone: every version of the ledger has them.
            found = connection.execute(
                sa.select(pipelines.c.name, pipelines.c.root).order_by(pipelines.c.name)
            )
            return {row.name: row.root for row in found}
    finally:
        database.dispose()
