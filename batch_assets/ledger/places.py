"""Where a pipeline is: the output root that it has, which may move, or be made anew, while a run is under way.

Shards of two roots have the same keys, so what was found under one says nothing of the other's.
"""

import sqlalchemy as sa

from batch_assets.errors import ClaimLost
from batch_assets.ledger.rows import Place
from batch_assets.ledger.schema import pipelines


def demand_place(connection: sa.Connection, pipeline: str, place: Place | None) -> None:
    """Raise ClaimLost where the pipeline is not at `place`: it has moved, or its root was made anew."""
    if place is None:
        return
    query = sa.select(pipelines.c.root, is_at(place).label("here")).where(pipelines.c.name == pipeline)
    found = connection.execute(query).one_or_none()
    if found is None or not found.here:
        now = "unknown to this ledger" if found is None else f"on output root {found.root}"
        again = " as it was made anew" if found is not None and found.root == place.root else ""
        raise ClaimLost(
            f"pipeline {pipeline} is {now}{again} since this run was started on {place.root}; start it again, or give "
            "each root a pipeline with a `name` of its own"
        )


def still_at(pipeline: str, place: Place | None) -> sa.ColumnElement[bool]:
    """For the condition of a change: whether the pipeline is at `place`, if one is named."""
    if place is None:
        return sa.true()
    return sa.select(pipelines.c.name).where(pipelines.c.name == pipeline, is_at(place)).exists()


def is_at(place: Place) -> sa.ColumnElement[bool]:
    """Whether a row of the pipelines is at `place`."""
    return sa.and_(
        pipelines.c.root == place.root, pipelines.c.deployment.is_not_distinct_from(place.deployment)
    )
