"""Generations whose time is up: first they leave every count, then, once their files are gone, the ledger.

Which ones these are, and what of theirs is deleted, is `control/request_removal.py`'s.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from batch_assets.ledger.changing import change_shards
from batch_assets.ledger.schema import files, jobs, shards, story
from batch_assets.ledger.states import UNFINISHED, State
from batch_assets.ledger.store import Store, repeatable
from batch_assets.ledger.story import Event, Told
from batch_assets.paths import shard_key


@dataclass(frozen=True)
class RetiredGeneration:
    """What became of the records of a generation that is not kept any longer, and its shards by key."""

    completed: int
    failed: int
    shards: list[str]


class Retiring(Store):
    """The part of the Ledger that lets go of generations."""

    @repeatable
    def ended_generations(self, pipeline: str, before: float) -> list[int]:
        """Those of which every shard has ended before a time (unix seconds), ascending; retired ones are among them."""
        counts = shards.c.superseded == sa.false()
        busy = sa.and_(counts, sa.or_(shards.c.state.in_(UNFINISHED), shards.c.updated_at >= before))
        query = (
            sa.select(shards.c.generation)
            .where(shards.c.pipeline == pipeline)
            .group_by(shards.c.generation)
            .having(sa.func.sum(sa.case((busy, 1), else_=0)) == 0)
            .order_by(shards.c.generation)
        )
        with self._database.read() as connection:
            return list(connection.scalars(query))

    @repeatable
    def retire(self, pipeline: str, generation: int, before: float) -> RetiredGeneration | None:
        """Take a generation out of all counts, claims and merges, if it ended before that; None where it did not.

        What became of its records is told again by each call, until `forget` is called; then there are none.
        """
        ours = (shards.c.pipeline == pipeline, _in_generation(generation))
        query = sa.select(
            shards.c.key,
            shards.c.state,
            shards.c.superseded,
            shards.c.records,
            shards.c.embedded,
            shards.c.updated_at,
        ).where(*ours)
        with self._database.write() as connection:
            rows = connection.execute(query).all()
            counting = [row for row in rows if not row.superseded]
            if any(row.state in UNFINISHED or row.updated_at >= before for row in counting):
                return None
            condition = sa.and_(_in_generation(generation), shards.c.superseded == sa.false())
            gone = {"superseded": True, "picture_due": None}
            told = Told(Event.SUPERSEDED, decision="is not kept any longer")
            while change_shards(connection, pipeline, condition, gone, self._clock(), told):
                pass
        completed = sum(row.embedded for row in rows if row.state == State.COLLECTED)
        failed = sum(row.records for row in rows) - completed
        return RetiredGeneration(completed, failed, [row.key for row in rows])

    @repeatable
    def forget(self, pipeline: str, generation: int) -> None:
        """Forget a generation that was retired, its jobs and its story; repeatable."""
        with self._database.write() as connection:
            retired = sa.select(shards.c.key).where(
                shards.c.pipeline == pipeline,
                _in_generation(generation),
                shards.c.superseded == sa.true(),
            )
            keys = list(connection.scalars(retired))
            for key in keys:
                for table in (jobs, story):
                    connection.execute(
                        sa.delete(table).where(table.c.pipeline == pipeline, table.c.shard == key)
                    )
                connection.execute(
                    sa.delete(shards).where(shards.c.pipeline == pipeline, shards.c.key == key)
                )
            connection.execute(
                sa.delete(files).where(files.c.pipeline == pipeline, files.c.generation == generation)
            )


def _in_generation(generation: int) -> sa.ColumnElement[bool]:
    """Its shards, found along the primary key: there is no index by generation."""
    start = shard_key(generation, 0).partition("-")[0]
    # "." comes next after "-".
    return sa.and_(shards.c.key > f"{start}-", shards.c.key < f"{start}.")
