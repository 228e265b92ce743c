"""Which shards are done with, so that what led to them is evidence no longer: by the ledger and their markers.

What lies about such a shard is found in `leftovers.py`.
"""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from batch_assets.control.ownership import read_owner
from batch_assets.control.pipeline import Pipeline
from batch_assets.embeddings.marker import ShardMarker, read_marker
from batch_assets.errors import AccountingError, BatchAssetsError
from batch_assets.ledger.rows import ShardRow
from batch_assets.ledger.states import AT_SERVICE, State
from batch_assets.merge.publishing import open_current
from batch_assets.plain_text import plain_logger
from batch_assets.sharding.plan_files import generations, read_summary
from batch_assets.sources.shards import reads_shards_of
from batch_assets.storage import open_storage

PAGE = 5_000
_AT_WORK = AT_SERVICE | {State.COLLECTING}
logger = plain_logger(__name__)


@dataclass(frozen=True, slots=True)
class Settled:
    """A shard that is done with. `since` is when that came to be (unix seconds).

    `marker` is its commit; None for a shard that has left the merge, of which nothing is needed.
    """

    key: str
    since: float
    marker: ShardMarker | None


class SettledShards:
    """The settled shards of one pipeline, as one look at its ledger shows them.

    Settled is what is collected under the current fingerprint and committed by a marker that can be
    read, and what a later plan replaced, no published version holds and nobody works on. All others
    are not: queued, at a service, failed, exhausted, stale, or computed again.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._fingerprint = pipeline.executor.fingerprint()
        self._collected: dict[str, float] = {}
        self._superseded: set[str] = set()
        for row in _rows(pipeline):
            if row.superseded:
                if row.state not in _AT_WORK:
                    self._superseded.add(row.key)
            elif row.state is State.COLLECTED and row.fingerprint == self._fingerprint:
                self._collected[row.key] = row.updated_at

    def collected_at(self, key: str) -> float | None:
        """When the ledger heard of the shard's commit, at the latest; None where it is not collected."""
        return self._collected.get(key)

    def is_superseded(self, key: str) -> bool:
        """Whether a later plan replaced the shard, and nobody works on it."""
        return key in self._superseded

    def settled(self, key: str) -> Settled | None:
        """The shard, read from its marker; None where it is not settled."""
        if key in self._superseded:
            left = self._left_at.get(key)
            return None if left is None else Settled(key, left, None)
        if key not in self._collected:
            return None
        try:
            found = read_marker(self._pipeline.storage, key)
        except AccountingError as error:
            logger.warning("%s; what led to the shard is kept", error)
            return None
        if found is None or found[0].fingerprint != self._fingerprint:
            return None
        return Settled(key, _seconds(found[0].created), found[0])

    @cached_property
    def _left_at(self) -> dict[str, float]:
        """When the superseded shards left the merge; those that somebody still reads are not among them."""
        manifest = open_current(self._pipeline.storage)
        published = {shard.shard for shard in manifest.merged_shards} if manifest is not None else set[str]()
        read = published | self._read_downstream()
        left: dict[str, float] = {}
        for generation in generations(self._pipeline.storage):
            summary = read_summary(self._pipeline.storage, generation)
            left |= {key: _seconds(summary.created) for key in summary.superseded if key not in read}
        return left

    def _read_downstream(self) -> set[str]:
        """Shards that a pipeline over this one's shards has begun and not embedded yet, as far as the ledger knows."""
        wanted: set[str] = set()
        ledger, own = self._pipeline.ledger, self._pipeline.storage.uri
        for other in ledger.pipelines():
            if other.name == self._pipeline.name:
                continue
            try:
                owner = read_owner(open_storage(other.root))
            except BatchAssetsError as error:
                logger.warning("pipeline %s: %s; all that it may read is kept", other.name, error)
                return set(self._superseded)
            if owner is not None and reads_shards_of(own, owner["source"]):
                begun = [state for state in State if state not in (State.PLANNED, State.COLLECTED)]
                wanted |= {row.key for row in ledger.shards(other.name, states=begun)}
        return wanted


def _rows(pipeline: Pipeline) -> Iterator[ShardRow]:
    """All shards, superseded ones among them, a page at a time."""
    after: str | None = None
    while page := pipeline.ledger.shards(pipeline.name, after=after, limit=PAGE, superseded=True):
        yield from page
        after = page[-1].key


def _seconds(written: str) -> float:
    return datetime.datetime.fromisoformat(written).timestamp()
