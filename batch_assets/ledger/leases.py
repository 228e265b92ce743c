"""Leases: by name (merge, plan, model), their heartbeat, and the runs that processes answer for.

A lease is void when its holder is seen to be dead on this host, else when it has expired. The
leases of shards, which carry their state along, are in `claims.py`.
"""

import socket

import sqlalchemy as sa

from batch_assets.ledger.holder import Holder
from batch_assets.ledger.schema import leases, runs, shards
from batch_assets.ledger.store import Store

HEARTBEAT_SECONDS = 10.0
LEASE_SECONDS = 60.0


def is_void(holder: str | None, lease_until: float | None, now: float) -> bool:
    """Whether nobody alive holds what `holder` (encoded) took until `lease_until`."""
    if holder is None or lease_until is None or lease_until <= now:
        return True
    return Holder.decode(holder).is_dead_here()


class Leases(Store):
    """The part of the Ledger that keeps leases by name, and runs."""

    def heartbeat(self, holder: Holder) -> int:
        """Extend everything that `holder` has; how many leases that is. Due every HEARTBEAT_SECONDS."""
        until, mine = self._clock() + LEASE_SECONDS, holder.encode()
        with self._database.write() as connection:
            held = sa.update(shards).where(shards.c.holder == mine).values(lease_until=until)
            named = (
                sa.update(leases)
                .where(leases.c.holder == mine)
                .values(lease_until=self._clock() + leases.c.seconds)
            )
            return connection.execute(held).rowcount + connection.execute(named).rowcount

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
            if not is_void(row.holder, row.lease_until, now):
                return None
            fence = int(row.fence) + 1
            connection.execute(sa.update(leases).where(leases.c.name == name).values(fence=fence, **values))
            return fence

    def release_lease(self, name: str, holder: Holder) -> None:
        """Give the lease back; one that another has taken since is left to it."""
        with self._database.write() as connection:
            mine = (leases.c.name == name, leases.c.holder == holder.encode())
            connection.execute(sa.update(leases).where(*mine).values(holder=None, lease_until=None))

    def lease_holder(self, name: str) -> Holder | None:
        """Who has the lease; None where nobody alive does."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(leases).where(leases.c.name == name)).one_or_none()
        if row is None or is_void(row.holder, row.lease_until, self._clock()):
            return None
        return Holder.decode(row.holder)

    def note_run(self, run_id: str, holder: Holder, pipeline: str) -> None:
        """Remember which process answers for a Dagster run; a run noted again has a new process."""
        with self._database.write() as connection:
            connection.execute(sa.delete(runs).where(runs.c.run_id == run_id))
            connection.execute(
                sa.insert(runs).values(
                    run_id=run_id, pipeline=pipeline, host=holder.host, holder=holder.encode()
                )
            )

    def dead_runs(self, limit: int) -> list[str]:
        """Runs whose process this host knows to be dead, at most `limit`."""
        query = sa.select(runs.c.run_id, runs.c.holder).where(runs.c.host == socket.gethostname())
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(runs.c.run_id)).all()
        return [run_id for run_id, holder in rows if Holder.decode(holder).is_dead_here()][:limit]

    def forget_run(self, run_id: str) -> None:
        """The run has ended, or has been reported dead."""
        with self._database.write() as connection:
            connection.execute(sa.delete(runs).where(runs.c.run_id == run_id))
