"""Moves of shards that nobody holds: by compare-and-set, in bulk; and adoption from commit markers.

The moves of a held shard, which take its fence, are in `claims.py`.
"""

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from batch_assets.ledger.changing import BATCH, SUMMED, change_shards, reserve_revisions, shift_tallies
from batch_assets.ledger.holder import Holder
from batch_assets.ledger.leases import is_void
from batch_assets.ledger.rows import Adoption
from batch_assets.ledger.schema import pipelines, shards
from batch_assets.ledger.states import MOVES, State
from batch_assets.ledger.store import Store

_MOVE_VALUES = frozenset({"rejected", "tokens", "error", "run_id"})
# These need a fence: claim, begin_commit and finish make them.
_BY_CLAIM = frozenset({State.COLLECTING, State.COLLECTED})
_FREE = sa.and_(shards.c.holder.is_(None), shards.c.superseded == sa.false())
# A shard to be computed again counts as not embedded; what its input rejects stays known.
_AFRESH: dict[str, Any] = {"state": State.READY, "attempt": 0, "embedded": 0, "failed": 0, "error": None}


class Moves(Store):
    """The part of the Ledger that moves shards without a claim."""

    def move(
        self, pipeline: str, keys: Sequence[str], frm: Collection[State], to: State, **values: Any
    ) -> list[str]:
        """Move those of `keys` that stand in one of `frm`; the keys moved.

        A shard that somebody holds, or that is superseded, stays where it is. `values`:
        rejected, tokens, error, run_id. ValueError for a move that `MOVES` does not have or that
        needs a claim, before anything moves.
        """
        for state in frm:
            if to not in MOVES[state]:
                raise ValueError(f"a shard cannot move from {state} to {to}")
        if to in _BY_CLAIM or (to is State.RUNNING and State.READY in frm):
            raise ValueError(f"a shard becomes {to} by its claim only")
        if unknown := values.keys() - _MOVE_VALUES:
            raise ValueError(f"a move does not set {', '.join(sorted(unknown))}")
        moved: list[str] = []
        for start in range(0, len(keys), BATCH):
            condition = sa.and_(shards.c.key.in_(keys[start : start + BATCH]), shards.c.state.in_(frm), _FREE)
            with self._database.write() as connection:
                new = {"state": to, **values}
                moved += change_shards(connection, pipeline, condition, new, self._clock())
        return moved

    def retry(self, pipeline: str, keys: Sequence[str] | None = None) -> list[str]:
        """Exhausted shards become READY with all their attempts again; None: every one."""
        return self._again(pipeline, keys, State.EXHAUSTED, {"state": State.READY, "attempt": 0})

    def recompute(self, pipeline: str, keys: Sequence[str]) -> list[str]:
        """Collected shards become READY: the commit markers they have now count no longer."""
        values = {**_AFRESH, "outdated_fence": shards.c.fence}
        return self._again(pipeline, keys, State.COLLECTED, values)

    def mark_stale(self, pipeline: str, fingerprint: str) -> list[str]:
        """Collected shards of another fingerprint than `fingerprint` become READY; their keys."""
        other = shards.c.fingerprint.is_distinct_from(fingerprint)
        return self._change_all(pipeline, sa.and_(shards.c.state == State.COLLECTED, _FREE, other), _AFRESH)

    def stop(self, pipeline: str) -> list[str]:
        """Waiting shards become STOPPED, and runs are asked to stop (`stop_requested`); the keys stopped."""
        with self._database.write() as connection:
            named = sa.update(pipelines).where(pipelines.c.name == pipeline)
            if connection.execute(named.values(stop_requested=True)).rowcount:
                reserve_revisions(connection, pipeline, 1)
        waiting = shards.c.state.in_([State.READY, State.QUEUED])
        return self._change_all(pipeline, sa.and_(waiting, _FREE), {"state": State.STOPPED})

    def start_again(self, pipeline: str, keys: Sequence[str] | None = None) -> list[str]:
        """Stopped shards become READY, None: every one; the order to stop is lifted by `clear_stop`."""
        return self._again(pipeline, keys, State.STOPPED, {"state": State.READY})

    def _again(
        self, pipeline: str, keys: Sequence[str] | None, state: State, values: dict[str, Any]
    ) -> list[str]:
        condition = sa.and_(shards.c.state == state, _FREE)
        if keys is None:
            return self._change_all(pipeline, condition, values)
        changed: list[str] = []
        for start in range(0, len(keys), BATCH):
            some = shards.c.key.in_(keys[start : start + BATCH])
            changed += self._change_all(pipeline, sa.and_(some, condition), values)
        return changed

    def adopt_all(self, pipeline: str, adoptions: Sequence[Adoption]) -> list[str]:
        """Believe commit markers, one a shard: the shards are COLLECTED, whatever they were; the keys believed.

        Not believed: a marker that an order to compute again has outdated, one older than what
        is collected here, and one while another live process holds the shard at a higher fence.
        """
        believed: list[str] = []
        for start in range(0, len(adoptions), BATCH):
            believed += self._adopt_batch(pipeline, adoptions[start : start + BATCH])
        return believed

    def _adopt_batch(self, pipeline: str, adoptions: Sequence[Adoption]) -> list[str]:
        markers = {adoption.key: adoption for adoption in adoptions}
        here = sa.and_(shards.c.pipeline == pipeline, shards.c.key.in_(list(markers)))
        now = self._clock()
        with self._database.write() as connection:
            rows = connection.execute(sa.select(shards).where(here, shards.c.superseded == sa.false()))
            believed = [(row, markers[row["key"]]) for row in map(dict, rows.mappings())
                        if _believes(row, markers[row["key"]], now)]  # fmt: skip
            fresh = [(row, marker) for row, marker in believed if not _is_known(row, marker)]
            if not fresh:
                return [marker.key for _, marker in believed]
            first = reserve_revisions(connection, pipeline, len(fresh))
            update = sa.update(shards).where(
                shards.c.pipeline == pipeline, shards.c.key == sa.bindparam("shard_key")
            )
            columns = ("fence", "fingerprint", "embedded", "rejected", "failed", "tokens", "revision")
            constant = {"state": State.COLLECTED, "holder": None, "lease_until": None, "error": None,
                        "updated_at": now}  # fmt: skip
            bound: dict[str, Any] = {name: sa.bindparam(f"new_{name}") for name in columns}
            values = [
                {
                    "shard_key": marker.key,
                    "new_fence": max(row["fence"], marker.fence),
                    "new_revision": first + place,
                    **{f"new_{name}": getattr(marker, name) for name in columns[1:-1]},
                }
                for place, (row, marker) in enumerate(fresh)
            ]
            connection.execute(
                update.values({**constant, **bound, "picture_due": sa.bindparam("new_revision")}), values
            )
            shift_tallies(connection, pipeline, ((row, _adopted(row, marker)) for row, marker in fresh))
            return [marker.key for _, marker in believed]


def _believes(row: dict[str, Any], marker: Adoption, now: float) -> bool:
    if marker.fence <= row["outdated_fence"]:
        return False
    if row["state"] == State.COLLECTED:
        return marker.fence >= row["fence"] or _is_known(row, marker)
    return (
        row["holder"] is None
        or row["fence"] <= marker.fence
        or row["holder"] == Holder.current().encode()
        or is_void(row["holder"], row["lease_until"], now)
    )


def _is_known(row: dict[str, Any], marker: Adoption) -> bool:
    """Whether the row says already what the marker says."""
    names = ("fingerprint", "embedded", "rejected", "failed", "tokens")
    return (
        row["state"] == State.COLLECTED
        and row["fence"] >= marker.fence
        and all(row[name] == getattr(marker, name) for name in names)
    )


def _adopted(row: dict[str, Any], marker: Adoption) -> dict[str, Any]:
    new = {name: getattr(marker, name) for name in SUMMED if hasattr(marker, name)}
    return {**row, **new, "state": State.COLLECTED, "fingerprint": marker.fingerprint}
