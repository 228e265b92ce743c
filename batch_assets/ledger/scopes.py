"""Scopes: what jobs of one account, region and model share: slots, pauses, and a pace of calls.

Which job gets a slot is decided in `submissions.py`; how many slots there are, by the executors.
"""

from typing import Any

import sqlalchemy as sa

from batch_assets.ledger.rows import ScopeRow
from batch_assets.ledger.schema import scopes
from batch_assets.ledger.store import Store, repeatable


class Scopes(Store):
    """The part of the Ledger that keeps what jobs share. A scope is known from its first mention on."""

    @repeatable
    def scope(self, name: str) -> ScopeRow:
        """The scope; one never mentioned has no slots yet."""
        with self._database.read() as connection:
            return read_scope(connection, name)

    @repeatable
    def set_scope(
        self,
        name: str,
        *,
        slots: int | None = None,
        foreign_jobs: int | None = None,
        observed_at: float | None = None,
        oldest_active: float | None = None,
    ) -> None:
        """Note what the service says; None leaves what was known.

        `oldest_active` belongs to the observation: with `observed_at`, None says that nothing is active.
        """
        given = {"slots": slots, "foreign_jobs": foreign_jobs, "observed_at": observed_at}
        values: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        if observed_at is not None or oldest_active is not None:
            values["oldest_active"] = oldest_active
        if not values:
            return
        with self._database.write() as connection:
            write_scope(connection, name, **values)

    @repeatable
    def reserve_calls(self, name: str, count: int, per_minute: float) -> float:
        """When `count` calls may start (unix seconds), at `per_minute` over all processes; they are then taken."""
        with self._database.write() as connection:
            start = max(self._clock(), read_scope(connection, name).calls_from)
            write_scope(connection, name, calls_from=start + count * 60 / per_minute)
            return start


def read_scope(connection: sa.Connection, name: str) -> ScopeRow:
    """The scope as it is, or as one that is not known yet."""
    row = connection.execute(sa.select(scopes).where(scopes.c.name == name)).mappings().one_or_none()
    return ScopeRow(**row) if row is not None else ScopeRow(name)


def write_scope(connection: sa.Connection, name: str, **values: Any) -> None:
    """Set columns of a scope, new or known."""
    if connection.execute(sa.update(scopes).where(scopes.c.name == name).values(**values)).rowcount == 0:
        connection.execute(sa.insert(scopes).values(name=name, **values))


def pause_until(connection: sa.Connection, name: str, until: float) -> None:
    """Let nothing be submitted in the scope before `until`."""
    write_scope(connection, name, paused_until=max(until, read_scope(connection, name).paused_until))
