"""The one way in which shard rows change, so that tallies and revisions are right in the same transaction.

Which change is allowed, and when, belongs to the callers: `planning.py`, `moves.py`, `claims.py`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from batch_assets.ledger.schema import counters, pipelines, shards, tallies
from batch_assets.ledger.states import State
from batch_assets.ledger.story import KEPT_ENTRIES, Told, forget_oldest, is_repeated, write_story

BATCH = 1_000
"""Shards in one transaction of a bulk change: some tens of milliseconds of the write lock."""

SUMMED = ("records", "bytes", "rejected", "embedded", "failed", "tokens")
TALLIED = ("key", "state", "fingerprint", "superseded", *SUMMED)

Values = Mapping[str, Any]

WAITING_FOR_NOTHING: Values = {"collect_after": None, "queued_at": None, "queued_records": None}
"""What is set only in some states: to be collected from then on, and a place in the queue."""


def reserve_revisions(
    connection: sa.Connection, pipeline: str, count: int, did_well_at: float | None = None
) -> int:
    """Take `count` consecutive revisions for rows of `pipeline`; the first of them.

    `did_well_at` is now where one of them is committed with a record that did well.
    """
    advance = sa.update(counters).where(counters.c.name == "revision")
    last = connection.scalar(advance.values(value=counters.c.value + count).returning(counters.c.value))
    assert last is not None, "the first migration writes this row"
    noted = {} if did_well_at is None else {"did_well_at": did_well_at}
    connection.execute(
        sa.update(pipelines).where(pipelines.c.name == pipeline).values(revision=last, **noted)
    )
    return last - count + 1


def shift_tallies(
    connection: sa.Connection, pipeline: str, changes: Iterable[tuple[Values | None, Values | None]]
) -> None:
    """Take each change's old row out of the tallies and put its new one in; None is no row."""
    deltas: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * (1 + len(SUMMED)))
    for old, new in changes:
        for row, sign in ((old, -1), (new, 1)):
            if row is None or row["superseded"]:
                continue
            sums = deltas[row["state"], row["fingerprint"] or ""]
            sums[0] += sign
            for place, name in enumerate(SUMMED, start=1):
                sums[place] += sign * (row[name] or 0)
    for (state, fingerprint), sums in deltas.items():
        if not any(sums):
            continue
        delta = dict(zip(("shards", *SUMMED), sums, strict=True))
        row = (
            tallies.c.pipeline == pipeline,
            tallies.c.state == state,
            tallies.c.fingerprint == fingerprint,
        )
        added = {name: tallies.c[name] + value for name, value in delta.items()}
        if connection.execute(sa.update(tallies).where(*row).values(added)).rowcount == 0:
            key = {"pipeline": pipeline, "state": state, "fingerprint": fingerprint}
            connection.execute(sa.insert(tallies).values({**key, **delta}))


def change_shards(
    connection: sa.Connection,
    pipeline: str,
    condition: sa.ColumnElement[bool],
    values: Values,
    now: float,
    told: Told | None = None,
) -> list[str]:
    """Give `values` to the shards of `pipeline` that meet `condition`, at most BATCH of them.

    Returns their keys, sorted. A summed column's new value must be a plain number; the others
    may be expressions. A shard that becomes collected owes a picture; any other owes none.
    A shard that gets a state leaves the queue, and is not to be collected, unless `values` say so.
    `told` becomes an entry of each shard's story.
    """
    rows = connection.execute(
        sa.select(*(shards.c[name] for name in TALLIED), shards.c.told)
        .where(shards.c.pipeline == pipeline, condition)
        .order_by(shards.c.key)
        .limit(BATCH)
    ).mappings()
    before = [dict(row) for row in rows]
    if not before:
        return []
    keys = [row["key"] for row in before]
    did_well = values.get("state") == State.COLLECTED and values.get("embedded")
    first = reserve_revisions(connection, pipeline, len(keys), now if did_well else None)
    place = sa.func.row_number().over(order_by=shards.c.key).label("place")
    numbered = (
        sa.select(shards.c.key, place).where(shards.c.pipeline == pipeline, shards.c.key.in_(keys)).subquery()
    )
    revision = numbered.c.place + (first - 1)
    set_now: dict[str, Any] = {**values, "revision": revision, "updated_at": now}
    if "state" in values:
        set_now["picture_due"] = revision if values["state"] == State.COLLECTED else None
        set_now = {**WAITING_FOR_NOTHING, **set_now}
    if told is not None and told.unless_repeated and is_repeated(connection, pipeline, keys, told):
        told = None
    if told is not None:
        set_now["told"] = shards.c.told + 1
    connection.execute(
        sa.update(shards).where(shards.c.pipeline == pipeline, shards.c.key == numbered.c.key).values(set_now)
    )
    if told is not None:
        write_story(connection, pipeline, (first, first + len(keys) - 1), told, now)
        if full := [row["key"] for row in before if row["told"] >= KEPT_ENTRIES]:
            forget_oldest(connection, pipeline, full)
    plain = {name: values[name] for name in TALLIED if name in values}
    shift_tallies(connection, pipeline, ((row, {**row, **plain}) for row in before))
    return keys
