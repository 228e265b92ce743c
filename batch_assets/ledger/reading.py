"""What the ledger tells: shards, counts, changes since a cursor, and the picture that Dagster has.

Nothing that a sensor calls here grows with the number of shards; all of it goes by an index.
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Collection, Sequence

import sqlalchemy as sa

from batch_assets.ledger.changing import BATCH, SUMMED
from batch_assets.ledger.leases import is_void
from batch_assets.ledger.rows import SHARD_COLUMNS, Ends, ShardRow, Totals, shard_row
from batch_assets.ledger.schema import pipelines, shards, tallies
from batch_assets.ledger.states import State
from batch_assets.ledger.store import Store, repeatable
from batch_assets.ledger.story import StoryEntry, read_story

RECENT_CHANGES = 200


class Reading(Store):
    """The part of the Ledger that is asked."""

    def shard(self, pipeline: str, key: str) -> ShardRow | None:
        """One shard, superseded or not; None where there is none."""
        rows = self._select(sa.and_(shards.c.pipeline == pipeline, shards.c.key == key), shards.c.key, None)
        return rows[0] if rows else None

    @repeatable
    def story(self, pipeline: str, key: str) -> list[StoryEntry]:
        """What happened to the shard, oldest first; of a long story the newest entries."""
        with self._database.read() as connection:
            return read_story(connection, pipeline, key)

    def shards(
        self,
        pipeline: str,
        keys: Sequence[str] | None = None,
        states: Collection[State] | None = None,
        after: str | None = None,
        limit: int | None = None,
        superseded: bool = False,
    ) -> list[ShardRow]:
        """Shards in the order of planning: of `keys`, in `states`; `superseded` includes the superseded ones.

        With `after` or `limit` those with a key after `after`, at most `limit`, ordered by key as text.
        """
        where = [shards.c.pipeline == pipeline]
        if not superseded:
            where.append(shards.c.superseded == sa.false())
        if after is not None:
            where.append(shards.c.key > after)
        # One query a state, each along the index: all in one would read the other states' shards too.
        if states is None:
            parts = [sa.and_(*where)]
        else:
            parts = [sa.and_(*where, shards.c.state == state) for state in sorted(states)]
        if keys is not None:
            chunks = [keys[start : start + BATCH] for start in range(0, len(keys), BATCH)]
            parts = [sa.and_(part, shards.c.key.in_(chunk)) for part in parts for chunk in chunks]
        found = [self._select(part, shards.c.key, limit) for part in parts]
        if after is None and limit is None:
            return sorted(itertools.chain(*found), key=lambda row: (row.generation, row.ordinal))
        return list(heapq.merge(*found, key=lambda row: row.key))[:limit]

    @repeatable
    def small_shards(self, pipeline: str, least: int) -> list[int]:
        """How many records each shard of fewer than `least` has."""
        small = (shards.c.pipeline == pipeline, shards.c.superseded == sa.false(), shards.c.records < least)
        with self._database.read() as connection:
            return list(connection.scalars(sa.select(shards.c.records).where(*small)))

    def ready_after(self, pipeline: str, upstream: str, limit: int | None = None) -> list[ShardRow]:
        """Planned shards whose namesakes in `upstream` are collected, ordered by key, at most `limit`."""
        theirs = shards.alias("theirs")
        collected = (
            sa.select(theirs.c.key)
            .where(
                theirs.c.pipeline == upstream,
                theirs.c.key == shards.c.key,
                theirs.c.superseded == sa.false(),
                theirs.c.state == State.COLLECTED,
            )
            .correlate(shards)
            .exists()
        )
        waiting = sa.and_(
            shards.c.pipeline == pipeline, shards.c.superseded == sa.false(), shards.c.state == State.PLANNED
        )
        return self._select(sa.and_(waiting, collected), shards.c.key, limit)

    @repeatable
    def last_change(self, pipeline: str) -> float:
        """When a shard of the pipeline changed last (unix seconds); 0 where it has none."""
        query = (
            sa.select(shards.c.updated_at)
            .where(shards.c.pipeline == pipeline)
            .order_by(shards.c.revision.desc())
            .limit(1)
        )
        with self._database.read() as connection:
            return connection.scalar(query) or 0.0

    @repeatable
    def counts(self, pipeline: str) -> dict[State, int]:
        """How many shards stand in each state; one without shards is left out, and is 0 if asked for."""
        query = sa.select(tallies.c.state, tallies.c.shards).where(tallies.c.pipeline == pipeline)
        counts: Counter[State] = Counter()
        with self._database.read() as connection:
            for state, number in connection.execute(query.where(tallies.c.shards > 0)):
                counts[State(state)] += number
        return counts

    @repeatable
    def ends(self, pipeline: str) -> Ends:
        """What has become of the planned records, by the shards' states."""
        query = sa.select(tallies).where(tallies.c.pipeline == pipeline)
        embedded = left_out = given_up = under_way = 0
        with self._database.read() as connection:
            for row in connection.execute(query):
                if row.state == State.COLLECTED:
                    embedded += row.embedded
                    left_out += row.records - row.embedded
                elif row.state == State.EXHAUSTED:
                    given_up += row.records
                else:
                    under_way += row.records
        return Ends(embedded, left_out + given_up, under_way)

    @repeatable
    def records_in(self, pipeline: str, state: State) -> int:
        """How many planned records the shards in a state have together."""
        query = sa.select(sa.func.sum(tallies.c.records)).where(
            tallies.c.pipeline == pipeline, tallies.c.state == state
        )
        with self._database.read() as connection:
            return int(connection.scalar(query) or 0)

    @repeatable
    def is_held(self, pipeline: str, key: str) -> bool:
        """Whether somebody alive is computing or committing the shard."""
        columns = (shards.c.holder, shards.c.lease_until)
        one = sa.select(*columns).where(shards.c.pipeline == pipeline, shards.c.key == key)
        with self._database.read() as connection:
            row = connection.execute(one).one_or_none()
        return row is not None and not is_void(row.holder, row.lease_until, self._judged_at(self._clock()))

    @repeatable
    def recent_rate(self, pipeline: str, most: int = 20) -> float | None:
        """Records per second over the shards that were collected last, from end to end; None where unknown.

        A pause of the work counts as time, so that the number is what a person sees.
        """
        # Among the last changes, not among all shards: those that wait would all have to be passed.
        query = (
            sa.select(shards.c.state, shards.c.records, shards.c.updated_at)
            .where(shards.c.pipeline == pipeline)
            .order_by(shards.c.revision.desc())
            .limit(RECENT_CHANGES)
        )
        with self._database.read() as connection:
            recent = connection.execute(query).all()
        rows = [row for row in recent if row.state == State.COLLECTED][:most]
        seconds = rows[0].updated_at - rows[-1].updated_at if rows else 0.0
        # The first one's own time is not known: it only starts the clock.
        return sum(row.records for row in rows[:-1]) / seconds if seconds > 0 else None

    @repeatable
    def totals(self, pipeline: str) -> Totals:
        """Sums over the pipeline's shards."""
        query = (
            sa.select(tallies, pipelines.c.fingerprint.label("current"))
            .join(pipelines, pipelines.c.name == tallies.c.pipeline)
            .where(tallies.c.pipeline == pipeline)
        )
        sums = dict.fromkeys(("shards", *SUMMED, "stale", "stale_shards"), 0)
        with self._database.read() as connection:
            for row in connection.execute(query).mappings():
                for name in ("shards", *SUMMED):
                    sums[name] += row[name]
                if row["current"] is not None and row["fingerprint"] not in ("", row["current"]):
                    sums["stale"] += row["records"]
                    sums["stale_shards"] += row["shards"]
        return Totals(planned=sums.pop("records"), **sums)

    def changes(self, after: int, limit: int, pipeline: str | None = None) -> list[ShardRow]:
        """Shards changed since revision `after`, oldest change first, at most `limit`.

        A shard changed twice comes once, as it is now. The cursor for the next call is the last
        row's revision; it stays good when a lost ledger is replaced by a new one.
        """
        where = shards.c.revision > after
        if pipeline is not None:
            where = sa.and_(shards.c.pipeline == pipeline, where)
        return self._select(where, shards.c.revision, limit)

    def unpictured(self, limit: int) -> list[ShardRow]:
        """Collected shards of any pipeline whose materialization is not confirmed, oldest first."""
        return self._select(shards.c.picture_due.is_not(None), shards.c.picture_due, limit)

    @repeatable
    def set_pictured(self, pipeline: str, keys: Sequence[str]) -> None:
        """Dagster has been told the states that these shards have now."""
        for start in range(0, len(keys), BATCH):
            here = (shards.c.pipeline == pipeline, shards.c.key.in_(keys[start : start + BATCH]))
            with self._database.write() as connection:
                told = sa.update(shards).where(*here)
                connection.execute(told.values(picture=shards.c.state, picture_due=None))

    @repeatable
    def _select(
        self, where: sa.ColumnElement[bool], order: sa.ColumnElement[object], limit: int | None
    ) -> list[ShardRow]:
        query = sa.select(*SHARD_COLUMNS).where(where).order_by(order).limit(limit)
        with self._database.read() as connection:
            return [shard_row(row) for row in connection.execute(query).mappings()]
