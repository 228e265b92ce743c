"""Leases: by name (merge, plan, model), their heartbeat, and the runs that processes answer for.

A lease is void when its holder is seen to be dead on this host, else when it has expired. The
leases of shards, which carry their state along, are in `claims.py`. The clock is the database's
where it has one; a SQLite file on a network is as good as the clocks of the machines that share it.
What follows of an outage, in which nobody can renew anything, is in `outage.py`.
"""

import socket

import sqlalchemy as sa

from batch_assets.ledger.holder import Holder
from batch_assets.ledger.schema import leases, runs, shards
from batch_assets.ledger.store import Store, repeatable
from batch_assets.retry_policy import BETWEEN_STEPS_SECONDS, LEASE_SECONDS, RUN_SECONDS


def is_void(holder: str | None, lease_until: float | None, now: float) -> bool:
    """Whether nobody alive holds what `holder` (encoded) took until `lease_until`."""
    if holder is None or lease_until is None or lease_until <= now:
        return True
    return Holder.decode(holder).is_dead_here()


class Leases(Store):
    """The part of the Ledger that keeps leases by name, and runs."""

    @repeatable
    def heartbeat(self, holder: Holder) -> int:
        """Extend everything that `holder` has; how many leases that is. Due every HEARTBEAT_SECONDS."""
        mine = holder.encode()
        with self._database.write() as connection:
            now = self._clock()
            held = sa.update(shards).where(shards.c.holder == mine).values(lease_until=now + LEASE_SECONDS)
            named = (
                sa.update(leases).where(leases.c.holder == mine).values(lease_until=now + leases.c.seconds)
            )
            connection.execute(
                sa.update(runs).where(runs.c.holder == mine).values(alive_until=now + RUN_SECONDS)
            )
            _shorten(connection, now)
            return connection.execute(held).rowcount + connection.execute(named).rowcount

    @repeatable
    def shorten_leases(self) -> None:
        """See to it that no lease lasts longer from now on than it is long.

        One that does was taken by a clock that was ahead: if nobody renews it, it ends in time.
        """
        now = self._clock()
        with self._database.read() as connection:
            if not any(
                connection.scalar(sa.select(sa.true()).where(late).limit(1)) for late in _too_long(now)
            ):
                return
        with self._database.write() as connection:
            _shorten(connection, self._clock())

    @repeatable
    def lease(self, name: str, holder: Holder, seconds: float = LEASE_SECONDS) -> int | None:
        """Take the lease `name`; its fence, or None while somebody alive has it.

        "Somebody" includes `holder` itself: two threads of one process do not share a lease.
        """
        with self._database.write() as connection:
            row = connection.execute(sa.select(leases).where(leases.c.name == name)).one_or_none()
            now = self._clock()
            values = {"holder": holder.encode(), "seconds": seconds, "lease_until": now + seconds}
            if row is None:
                connection.execute(sa.insert(leases).values(name=name, fence=1, **values))
                return 1
            if not is_void(row.holder, row.lease_until, self._judged_at(now)):
                return None
            fence = int(row.fence) + 1
            connection.execute(sa.update(leases).where(leases.c.name == name).values(fence=fence, **values))
            return fence

    @repeatable
    def release_lease(self, name: str, holder: Holder) -> None:
        """Give the lease back; one that another has taken since is left to it."""
        with self._database.write() as connection:
            mine = (leases.c.name == name, leases.c.holder == holder.encode())
            connection.execute(sa.update(leases).where(*mine).values(holder=None, lease_until=None))

    @repeatable
    def lease_holder(self, name: str) -> Holder | None:
        """Who has the lease; None where nobody alive does."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(leases).where(leases.c.name == name)).one_or_none()
        if row is None or is_void(row.holder, row.lease_until, self._judged_at(self._clock())):
            return None
        return Holder.decode(row.holder)

    @repeatable
    def note_run(self, run_id: str, holder: Holder, pipeline: str) -> None:
        """Remember which process answers for a Dagster run, from now on with heartbeats.

        A run noted again has a new process.
        """
        with self._database.write() as connection:
            connection.execute(sa.delete(runs).where(runs.c.run_id == run_id))
            connection.execute(
                sa.insert(runs).values(
                    run_id=run_id, pipeline=pipeline, host=holder.host, holder=holder.encode(),
                    alive_until=self._clock() + RUN_SECONDS,
                )
            )  # fmt: skip

    @repeatable
    def note_step_end(self, run_id: str) -> None:
        """The process still answers for the run, without heartbeats until it is noted again."""
        with self._database.write() as connection:
            until = self._clock() + BETWEEN_STEPS_SECONDS
            connection.execute(sa.update(runs).where(runs.c.run_id == run_id).values(alive_until=until))

    @repeatable
    def dead_runs(self, limit: int) -> list[str]:
        """Runs of this host whose process it knows to be dead, at most `limit`.

        And those from before it was booted, once they have been silent for long: there may be
        two machines of one name.
        """
        query = sa.select(runs).where(runs.c.host == socket.gethostname()).order_by(runs.c.run_id)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        now = self._judged_at(self._clock())
        return [row.run_id for row in rows if _is_dead(Holder.decode(row.holder), row.alive_until, now)][
            :limit
        ]

    @repeatable
    def forget_run(self, run_id: str) -> None:
        """The run has ended, or has been reported dead."""
        with self._database.write() as connection:
            connection.execute(sa.delete(runs).where(runs.c.run_id == run_id))


def _is_dead(holder: Holder, alive_until: float, now: float) -> bool:
    if holder.could_be_seen_here():
        return holder.is_dead_here()
    return 0 < alive_until <= now


def _too_long(now: float) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    """Which leases, of shards and by name, end later than one that is taken now."""
    of_shard = sa.and_(shards.c.holder.is_not(None), shards.c.lease_until > now + LEASE_SECONDS)
    return of_shard, leases.c.lease_until > now + leases.c.seconds


def _shorten(connection: sa.Connection, now: float) -> None:
    of_shard, named = _too_long(now)
    connection.execute(sa.update(shards).where(of_shard).values(lease_until=now + LEASE_SECONDS))
    connection.execute(sa.update(leases).where(named).values(lease_until=now + leases.c.seconds))
