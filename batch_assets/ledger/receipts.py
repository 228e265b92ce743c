"""Receipts, by which a transaction that was kept and never answered is told from one that was lost.

Each writer leaves one, over its last one, in the transaction itself. When to look for it is for `database.py`.
"""

import itertools
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_KEPT_SECONDS = 7 * 86_400
_NOW = "extract(epoch FROM clock_timestamp())"
_process = secrets.token_hex(8)
_numbers = itertools.count()
_free: list[str] = []
_tidied: set[str] = set()


@dataclass(frozen=True)
class Receipt:
    """The receipt of one transaction, under a writer's name that nobody else has meanwhile."""

    writer: str
    text: str = field(default_factory=lambda: secrets.token_hex(8))

    def statements(self, url_shown: str) -> list[str]:
        """What leaves it; and, once for a process and database, tidies up after writers that are no more."""
        statements = []
        if url_shown not in _tidied:
            _tidied.add(url_shown)
            statements.append(f"DELETE FROM ledger_receipts WHERE at < {_NOW} - {_KEPT_SECONDS}")
        return [
            *statements,
            f"INSERT INTO ledger_receipts (writer, receipt, at) VALUES ('{self.writer}', '{self.text}', {_NOW}) "
            "ON CONFLICT (writer) DO UPDATE SET receipt = excluded.receipt, at = excluded.at",
        ]

    def query(self) -> str:
        """What gives the text of the writer's last one."""
        return f"SELECT receipt FROM ledger_receipts WHERE writer = '{self.writer}'"


@contextmanager
def borrowed_name() -> Iterator[str]:
    """A writer's name for one transaction.

    A process needs as many as it has at once, however many threads and ledgers it has in the end.
    """
    try:
        name = _free.pop()
    except IndexError:
        name = f"{_process}-{next(_numbers)}"
    try:
        yield name
    finally:
        _free.append(name)


def _rename() -> None:
    """A child's names are not its parent's."""
    global _process  # noqa: PLW0603
    _process = secrets.token_hex(8)
    _free.clear()


os.register_at_fork(after_in_child=_rename)
