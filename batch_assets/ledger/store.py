"""What every part of the Ledger stands on: a database and a clock."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from batch_assets.ledger.changing import BATCH, change_shards
from batch_assets.ledger.database import Database

T = TypeVar("T")


class Store:
    """Base of the Ledger's parts; each part is one idea in one file."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def now(self) -> float:
        """Unix seconds, by the ledger's clock."""
        return self._clock()

    def _change_all(
        self, pipeline: str, condition: sa.ColumnElement[bool], values: Mapping[str, Any]
    ) -> list[str]:
        """Change every shard that meets `condition`, in short transactions; `values` must end it."""
        changed: list[str] = []
        while True:
            with self._database.write() as connection:
                batch = change_shards(connection, pipeline, condition, values, self._clock())
            changed += batch
            if len(batch) < BATCH:
                return changed


def batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items in pieces of at most BATCH: what one statement takes."""
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))
