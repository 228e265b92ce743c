"""Orders to start a pipeline once, each known by its key, and what they come to.

Who gives them is told by `origin`; how they are carried out, and when one has come to an end, is
for the layers above to say. Whoever carries orders of a pipeline out alone has the lease
`start_lease` of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import sqlalchemy as sa

from batch_assets.ledger.leases import is_void
from batch_assets.ledger.reading import RECENT_CHANGES
from batch_assets.ledger.schema import shards, triggers
from batch_assets.ledger.states import State
from batch_assets.ledger.store import Store, repeatable

Origin = Literal["schedule", "webhook"]
KEPT_SECONDS = 30 * 86_400.0
"""So long an order of a schedule stays known after its end: its time does not come again. Others stay for ever."""
MESSAGE_CHARACTERS = 1_000


class TriggerState(StrEnum):
    """Where an order stands. What has ended stays so."""

    WAITING = "waiting"  # given; what is new at the source may not be planned yet
    RUNNING = "running"  # begun
    DONE = "done"  # published, or there was nothing new
    FAILED = "failed"


OPEN = (TriggerState.WAITING, TriggerState.RUNNING)


@dataclass(frozen=True)
class TriggerRow:
    """An order. `at` is when it was given, `updated_at` when it last moved (unix seconds)."""

    pipeline: str
    key: str
    origin: Origin
    state: TriggerState
    at: float
    updated_at: float
    message: str | None


def start_lease(pipeline: str) -> str:
    """Name of the lease of whoever carries the pipeline's orders out."""
    return f"start:{pipeline}"


class Triggers(Store):
    """The part of the Ledger that keeps orders to start pipelines."""

    @repeatable
    def open_trigger(self, pipeline: str, key: str, origin: Origin) -> tuple[TriggerRow, bool]:
        """The order of this key, and whether this call has given it: a key is given once, over all processes."""
        with self._database.write() as connection:
            now = self._clock()
            known = _one(connection, pipeline, key)
            if known is not None:
                return known, False
            row = TriggerRow(pipeline, key, origin, TriggerState.WAITING, now, now, None)
            connection.execute(sa.insert(triggers).values(**vars(row)))
            old = (triggers.c.origin == "schedule", triggers.c.updated_at < now - KEPT_SECONDS)
            ended = triggers.c.state.not_in(OPEN)
            connection.execute(sa.delete(triggers).where(triggers.c.pipeline == pipeline, ended, *old))
            return row, True

    @repeatable
    def trigger(self, pipeline: str, key: str) -> TriggerRow | None:
        """The order of this key; None where it was never given."""
        with self._database.read() as connection:
            return _one(connection, pipeline, key)

    @repeatable
    def open_triggers(self, pipeline: str | None = None, origin: Origin | None = None) -> list[TriggerRow]:
        """Orders that have not ended, oldest first: of one pipeline and one origin, or of all."""
        where = [triggers.c.state.in_(OPEN)]
        where += [triggers.c.pipeline == pipeline] if pipeline is not None else []
        where += [triggers.c.origin == origin] if origin is not None else []
        query = sa.select(triggers).where(*where).order_by(triggers.c.at, triggers.c.key)
        with self._database.read() as connection:
            return [_row(values) for values in connection.execute(query).mappings()]

    def has_open_trigger(self, pipeline: str) -> bool:
        """Whether an order of the pipeline has not ended."""
        return bool(self.open_triggers(pipeline))

    def begin_triggers(self, pipeline: str, keys: Sequence[str]) -> int:
        """WAITING → RUNNING; how many of `keys` did."""
        return self._move(pipeline, keys, (TriggerState.WAITING,), TriggerState.RUNNING, None)

    def put_back_triggers(self, pipeline: str, keys: Sequence[str]) -> int:
        """RUNNING → WAITING: who had begun them goes away. How many of `keys` did."""
        return self._move(pipeline, keys, (TriggerState.RUNNING,), TriggerState.WAITING, None)

    def close_trigger(
        self,
        pipeline: str,
        key: str,
        state: Literal[TriggerState.DONE, TriggerState.FAILED],
        message: str | None = None,
    ) -> bool:
        """End an open order; True for the one call that did. `message` says why it failed."""
        return bool(self._move(pipeline, [key], OPEN, state, message))

    @repeatable
    def _move(
        self,
        pipeline: str,
        keys: Sequence[str],
        frm: Sequence[TriggerState],
        to: TriggerState,
        message: str | None,
    ) -> int:
        kept = None
        if message is not None:
            kept = message.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()[:MESSAGE_CHARACTERS]
        where = (triggers.c.pipeline == pipeline, triggers.c.key.in_(keys), triggers.c.state.in_(frm))
        with self._database.write() as connection:
            moved = sa.update(triggers).where(*where)
            values = {"state": to, "updated_at": self._clock(), "message": kept}
            return connection.execute(moved.values(**values)).rowcount

    @repeatable
    def is_worked_on(self, pipeline: str) -> bool:
        """Whether somebody alive has a shard of the pipeline."""
        held = (shards.c.pipeline == pipeline, shards.c.holder.is_not(None))
        query = sa.select(shards.c.holder, shards.c.lease_until).where(*held).distinct()
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return any(not is_void(row.holder, row.lease_until, self._judged_at(self._clock())) for row in rows)

    @repeatable
    def last_collected(self, pipeline: str) -> float | None:
        """When a shard last came to its end (unix seconds); None where that is not among the last changes."""
        query = (
            sa.select(shards.c.state, shards.c.updated_at)
            .where(shards.c.pipeline == pipeline)
            .order_by(shards.c.revision.desc())
            .limit(RECENT_CHANGES)
        )
        with self._database.read() as connection:
            recent = connection.execute(query).all()
        ended = (State.COLLECTED, State.EXHAUSTED)
        return next((row.updated_at for row in recent if row.state in ended), None)


def _one(connection: sa.Connection, pipeline: str, key: str) -> TriggerRow | None:
    query = sa.select(triggers).where(triggers.c.pipeline == pipeline, triggers.c.key == key)
    values = connection.execute(query).mappings().one_or_none()
    return None if values is None else _row(values)


def _row(values: Any) -> TriggerRow:
    fields: dict[str, Any] = {**values, "state": TriggerState(values["state"])}
    return TriggerRow(**fields)
