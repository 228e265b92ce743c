"""Believing commit markers: a shard that the output root has is committed, whatever the ledger believed.

Moves that somebody orders are in `moves.py`; jobs that are found again, in `recovery.py`.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from batch_assets.ledger.changing import BATCH, SUMMED, WAITING_FOR_NOTHING, reserve_revisions, shift_tallies
from batch_assets.ledger.holder import Holder
from batch_assets.ledger.leases import is_void
from batch_assets.ledger.places import demand_place
from batch_assets.ledger.rows import Adoption, Place
from batch_assets.ledger.schema import shards
from batch_assets.ledger.states import State
from batch_assets.ledger.store import Store, repeatable
from batch_assets.ledger.story import KEPT_ENTRIES, Event, Told, forget_oldest, write_story

_FOUND = Told(Event.ADOPTED, "its commit marker was found under the output root")


class Adopting(Store):
    """The part of the Ledger that believes commit markers."""

    def adopt_all(
        self, pipeline: str, adoptions: Sequence[Adoption], place: Place | None = None
    ) -> list[str]:
        """Believe commit markers, one a shard: the shards are COLLECTED, whatever they were; the keys believed.

        Not believed: a marker that an order to compute again has outdated, one older than what
        is collected here, and one while another live process holds the shard at a higher fence.
        Raises ClaimLost where the pipeline is not at `place`, where they were found, any more.
        """
        believed: list[str] = []
        for start in range(0, len(adoptions), BATCH):
            believed += self._adopt_batch(pipeline, adoptions[start : start + BATCH], place)
        return believed

    @repeatable
    def _adopt_batch(self, pipeline: str, adoptions: Sequence[Adoption], place: Place | None) -> list[str]:
        markers = {adoption.key: adoption for adoption in adoptions}
        here = sa.and_(shards.c.pipeline == pipeline, shards.c.key.in_(list(markers)))
        now = self._clock()
        with self._database.write() as connection:
            demand_place(connection, pipeline, place)
            rows = connection.execute(sa.select(shards).where(here, shards.c.superseded == sa.false()))
            believed = [(row, markers[row["key"]]) for row in map(dict, rows.mappings())
                        if _believes(row, markers[row["key"]], self._judged_at(now))]  # fmt: skip
            fresh = [(row, marker) for row, marker in believed if not _is_known(row, marker)]
            if not fresh:
                return [marker.key for _, marker in believed]
            # Without a job here it is what an earlier ledger has seen.
            did_well = any(row["job"] is not None and marker.embedded for row, marker in fresh)
            first = reserve_revisions(connection, pipeline, len(fresh), now if did_well else None)
            update = sa.update(shards).where(
                shards.c.pipeline == pipeline, shards.c.key == sa.bindparam("shard_key")
            )
            columns = ("fence", "fingerprint", "embedded", "rejected", "failed", "tokens", "revision")
            constant = {"state": State.COLLECTED, "holder": None, "lease_until": None, "before": None,
                        "error": None, "collections": 0, "keep_fence": None, **WAITING_FOR_NOTHING,
                        "told": shards.c.told + 1, "updated_at": now}  # fmt: skip
            bound: dict[str, Any] = {name: sa.bindparam(f"new_{name}") for name in columns}
            values = [
                {
                    "shard_key": marker.key,
                    "new_fence": max(row["fence"], marker.fence),
                    "new_revision": first + place,
                    "marker_fence": marker.fence,
                    **{f"new_{name}": getattr(marker, name) for name in columns[1:-1]},
                }
                for place, (row, marker) in enumerate(fresh)
            ]
            connection.execute(
                update.values(
                    {
                        **constant,
                        **bound,
                        "commit_fence": sa.bindparam("marker_fence"),
                        "picture_due": sa.bindparam("new_revision"),
                    }
                ),
                values,
            )
            write_story(connection, pipeline, (first, first + len(fresh) - 1), _FOUND, now)
            if full := [row["key"] for row, _ in fresh if row["told"] >= KEPT_ENTRIES]:
                forget_oldest(connection, pipeline, full)
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
