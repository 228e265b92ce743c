"""Pipelines, the shards that planning gives them, and the order to stop.

What becomes of a planned shard is in `moves.py` and `claims.py`; source files are in `files.py`.
"""

from collections.abc import Sequence

import sqlalchemy as sa

from batch_assets.ledger.changing import (
    BATCH,
    SUMMED,
    WAITING_FOR_NOTHING,
    change_shards,
    reserve_revisions,
    shift_tallies,
)
from batch_assets.ledger.money import WHY_BLOCKED
from batch_assets.ledger.rows import PipelineRow
from batch_assets.ledger.schema import (
    FENCES_PER_EPOCH,
    breakers,
    files,
    jobs,
    pipelines,
    shards,
    story,
    submissions,
    tallies,
)
from batch_assets.ledger.states import LIVE_SUBMISSION, State
from batch_assets.ledger.store import Store, repeatable
from batch_assets.ledger.story import Event, Told


class Planning(Store):
    """The part of the Ledger that knows pipelines and plans."""

    def pipeline(self, name: str) -> PipelineRow | None:
        """The pipeline, or None where it was never attached."""
        rows = self._pipelines(pipelines.c.name == name)
        return rows[0] if rows else None

    def pipelines(self) -> list[PipelineRow]:
        """All pipelines, by name."""
        return self._pipelines(sa.true())

    @repeatable
    def _pipelines(self, condition: sa.ColumnElement[bool]) -> list[PipelineRow]:
        planned = (
            sa.select(sa.cast(sa.func.coalesce(sa.func.sum(tallies.c.records), 0), sa.BigInteger))
            .where(tallies.c.pipeline == pipelines.c.name)
            .scalar_subquery()
            .label("planned")
        )
        names = [name for name in PipelineRow.__dataclass_fields__ if name != "planned"]
        columns = [WHY_BLOCKED[name] if name in WHY_BLOCKED else pipelines.c[name] for name in names]
        query = sa.select(*columns, planned).where(condition).order_by(pipelines.c.name)
        with self._database.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [PipelineRow(**row) for row in rows]

    @repeatable
    def attach(
        self, name: str, root: str, epoch: int, *, keep: bool = False, deployment: str | None = None
    ) -> None:
        """Register the pipeline under its output root.

        `deployment` is the root's own id, and so is `epoch` the root's: each ledger that comes to a
        root gets the next one, so that the fences of two ledgers never meet. Where the name stood for
        another root, or the root has moved on to a later epoch, what this ledger knew is forgotten:
        the root's files are the truth. With `keep` it stays known: another ledger works on the same
        plans. An earlier epoch than the one known is an answer that came late, and is ignored.
        Submissions that are not known to have ended stay known either way, for they have a slot.
        """
        with self._database.write() as connection:
            query = sa.select(pipelines.c.root, pipelines.c.epoch).where(pipelines.c.name == name)
            known = connection.execute(query).one_or_none()
            if known is not None and known.root == root and known.epoch >= epoch:
                return
            if keep and known is not None and known.root == root:
                named = sa.update(pipelines).where(pipelines.c.name == name)
                # The other ledger may have put jobs in place that this one has not heard of.
                connection.execute(named.values(epoch=epoch, deployment=deployment, recovered=False))
                return
            for table in (shards, files, tallies, jobs, story, breakers):
                connection.execute(sa.delete(table).where(table.c.pipeline == name))
            ended = submissions.c.state.not_in(LIVE_SUBMISSION)
            connection.execute(sa.delete(submissions).where(submissions.c.pipeline == name, ended))
            if known is None:
                connection.execute(
                    sa.insert(pipelines).values(name=name, root=root, epoch=epoch, deployment=deployment)
                )
            else:
                forgotten = {"fingerprint": None, "generation": 0, "stop_requested": False,
                             "merged_revision": None, "held_usd": 0.0, "spent_usd": 0.0,
                             "blocked": None, "blocked_kind": None, "recovered": False,
                             "did_well_at": None}  # fmt: skip
                if known.root != root:
                    forgotten["configuration"] = None
                update = sa.update(pipelines).where(pipelines.c.name == name)
                connection.execute(update.values(root=root, epoch=epoch, deployment=deployment, **forgotten))
            reserve_revisions(connection, name, 1)

    @repeatable
    def set_configuration(self, name: str, configuration: str) -> None:
        """What this deployment opens the pipeline with from now on, as JSON."""
        if configuration != self.configuration(name):
            with self._database.write() as connection:
                named = sa.update(pipelines).where(pipelines.c.name == name)
                connection.execute(named.values(configuration=configuration))

    @repeatable
    def configuration(self, name: str) -> str | None:
        """What this deployment opened the pipeline with last, under the root it has; None where it never did."""
        with self._database.read() as connection:
            return connection.scalar(sa.select(pipelines.c.configuration).where(pipelines.c.name == name))

    def set_fingerprint(self, name: str, fingerprint: str) -> None:
        """The fingerprint that the pipeline's configuration has now; shards of others are stale."""
        self._set(name, fingerprint=fingerprint)

    @repeatable
    def stop_requested(self, pipeline: str) -> bool:
        """Whether `stop` was called since the last `clear_stop`; runs look at it between batches."""
        with self._database.read() as connection:
            query = sa.select(pipelines.c.stop_requested).where(pipelines.c.name == pipeline)
            return bool(connection.scalar(query))

    def clear_stop(self, pipeline: str) -> None:
        """Forget the order to stop."""
        self._set(pipeline, stop_requested=False)

    @repeatable
    def set_merged(self, pipeline: str, revision: int) -> None:
        """What was published was made when the pipeline stood at `revision`."""
        with self._database.write() as connection:
            named = sa.update(pipelines).where(pipelines.c.name == pipeline)
            connection.execute(named.values(merged_revision=revision))

    @repeatable
    def _set(self, name: str, **values: str | bool) -> None:
        differs = sa.or_(*(pipelines.c[column].is_distinct_from(value) for column, value in values.items()))
        row = (pipelines.c.name == name, differs)
        with self._database.write() as connection:
            if connection.execute(sa.update(pipelines).where(*row).values(**values)).rowcount:
                reserve_revisions(connection, name, 1)

    @repeatable
    def add_shards(
        self,
        pipeline: str,
        generation: int,
        planned: Sequence[tuple[str, int, int, int]],
        superseded: Sequence[str] = (),
    ) -> None:
        """Add a generation's shards (key, ordinal, records, bytes) as PLANNED, in one transaction.

        Shards that are there already are left as they are. Those of `superseded` leave counts,
        claims and merges for good; whoever holds one loses it. With this call the generation is
        known, also one without shards. LookupError for an unknown pipeline.
        """
        with self._database.write() as connection:
            query = sa.select(pipelines.c.epoch).where(pipelines.c.name == pipeline)
            epoch = connection.scalar(query)
            if epoch is None:
                raise LookupError(f"pipeline {pipeline!r} is not attached to this ledger")
            there = set(
                connection.scalars(
                    sa.select(shards.c.key).where(
                        shards.c.pipeline == pipeline,
                        shards.c.key.between(min(p[0] for p in planned), max(p[0] for p in planned)),
                    )
                )
                if planned
                else ()
            )
            new = {
                key: {
                    "pipeline": pipeline, "key": key, "generation": generation, "ordinal": ordinal,
                    "state": State.PLANNED, "records": records, "bytes": size,
                    "fence": (epoch - 1) * FENCES_PER_EPOCH, "updated_at": self._clock(),
                }
                for key, ordinal, records, size in planned
                if key not in there
            }  # fmt: skip
            self._supersede(connection, pipeline, superseded)
            if new:
                first = reserve_revisions(connection, pipeline, len(new))
                rows = [{**row, "revision": first + place} for place, row in enumerate(new.values())]
                connection.execute(sa.insert(shards), rows)
                untouched = {**dict.fromkeys(SUMMED, 0), "fingerprint": None, "superseded": False}
                shift_tallies(connection, pipeline, ((None, {**untouched, **row}) for row in rows))
            connection.execute(
                sa.update(pipelines)
                .where(pipelines.c.name == pipeline, pipelines.c.generation < generation)
                .values(generation=generation)
            )

    def _supersede(self, connection: sa.Connection, pipeline: str, keys: Sequence[str]) -> None:
        gone = {"superseded": True, "holder": None, "lease_until": None, "before": None, "picture_due": None,
                **WAITING_FOR_NOTHING}  # fmt: skip
        for start in range(0, len(keys), BATCH):
            chosen = shards.c.key.in_(keys[start : start + BATCH])
            condition = sa.and_(chosen, shards.c.superseded == sa.false())
            told = Told(Event.SUPERSEDED, decision="leaves counts and merges for good")
            change_shards(connection, pipeline, condition, gone, self._clock(), told)
