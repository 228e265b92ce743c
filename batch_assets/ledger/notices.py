"""What has been said once already, so that no second process and no second tick says it again.

How a notice reaches a person belongs to the layers above.
"""

import sqlalchemy as sa

from batch_assets.ledger.schema import notices
from batch_assets.ledger.store import Store, repeatable


class Notices(Store):
    """The part of the Ledger that remembers notices."""

    @repeatable
    def notice_once(self, key: str) -> bool:
        """True exactly once per key, over all processes."""
        if self.is_noticed(key):
            return False
        known = sa.select(notices.c.key).where(notices.c.key == key)
        with self._database.write() as connection:
            if connection.scalar(known) is not None:
                return False
            connection.execute(sa.insert(notices).values(key=key, at=self._clock()))
            return True

    @repeatable
    def is_noticed(self, key: str) -> bool:
        """Whether `notice_once` was called with this key before."""
        with self._database.read() as connection:
            return connection.scalar(sa.select(notices.c.key).where(notices.c.key == key)) is not None
