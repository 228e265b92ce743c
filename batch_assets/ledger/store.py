"""What every part of the Ledger stands on: a database, a clock, and transactions that are repeated if lost."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from batch_assets.ledger.changing import BATCH, change_shards
from batch_assets.ledger.database import Database, TransactionLost
from batch_assets.ledger.patience import PATIENCE_SECONDS, tries
from batch_assets.ledger.story import Told
from batch_assets.patience import pause, seconds_now

T = TypeVar("T")
P = ParamSpec("P")
S = TypeVar("S", bound="Store")


def repeatable(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """A method with one transaction whose result counts: done again where the database lost it in the middle.

    Nothing of it was kept then; one that was kept, and only its answer lost, is not lost.
    """

    @functools.wraps(method)
    def repeated(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        again = tries(
            lambda: seconds_now(PATIENCE_SECONDS),
            lambda error: isinstance(error, TransactionLost),
            sleep=pause,
        )
        return again(method, self, *args, **kwargs)

    return repeated


class Store:
    """Base of the Ledger's parts; each part is one idea in one file."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def now(self) -> float:
        """Unix seconds, by the ledger's clock."""
        return self._clock()

    def _judged_at(self, now: float) -> float:
        """The time to judge leases by: earlier than `now` after an outage, in which nobody could renew any."""
        return self._database.outage.judged_at(now)

    def _change_all(
        self,
        pipeline: str,
        condition: sa.ColumnElement[bool],
        values: Mapping[str, Any],
        told: Told | None = None,
    ) -> list[str]:
        """Change every shard that meets `condition`, in short transactions; `values` must end it."""
        changed: list[str] = []
        while True:
            batch = self._change_batch(pipeline, condition, values, told)
            changed += batch
            if len(batch) < BATCH:
                return changed

    @repeatable
    def _change_batch(
        self,
        pipeline: str,
        condition: sa.ColumnElement[bool],
        values: Mapping[str, Any],
        told: Told | None = None,
    ) -> list[str]:
        with self._database.write() as connection:
            return change_shards(connection, pipeline, condition, values, self._clock(), told)


def batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items in pieces of at most BATCH: what one statement takes."""
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))
