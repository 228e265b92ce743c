"""Removing what a pipeline no longer needs, or only counting it.

What may go is found in `leftovers.py`. Here it is made sure that it is ours to remove: the ledger
works on this root, no other one has come to it since, and no merge is going on. Killed at any
point, the next call finds what is left.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from batch_assets.control.empty_folders import remove_empty_folders
from batch_assets.control.leases import exclusive, heartbeat
from batch_assets.control.leftovers import find_due
from batch_assets.control.ownership import is_known, read_owner
from batch_assets.control.pipeline import Pipeline, pipeline_at_its_place
from batch_assets.control.retention import Kind, Leftover, Times
from batch_assets.errors import ConfigurationError, NotReady
from batch_assets.executors.base import Executor
from batch_assets.ledger.ledger import Ledger
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.settings.retention import RetentionSettings
from batch_assets.storage import same_place

FILES_AT_ONCE = 500
EXAMPLES = 5
Said = Callable[[str], None]


@dataclass
class KindOfLeftovers:
    """Leftovers of one kind: how many files and bytes, the first ones' URIs, since when the oldest is one."""

    files: int = 0
    bytes: int = 0
    oldest: float | None = None
    examples: list[str] = field(default_factory=list)

    def add(self, leftover: Leftover) -> None:
        self.files += 1
        self.bytes += leftover.bytes
        self.oldest = leftover.since if self.oldest is None else min(self.oldest, leftover.since)
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{leftover.storage.uri}/{leftover.path}")


@dataclass
class Leftovers:
    """What may be removed, or was. `kinds` has those with a retention time, also where there is nothing of one."""

    kinds: dict[Kind, KindOfLeftovers]

    @property
    def files(self) -> int:
        return sum(kind.files for kind in self.kinds.values())

    @property
    def bytes(self) -> int:
        return sum(kind.bytes for kind in self.kinds.values())


def owned_pipeline(settings: PipelineSettings, ledger: Ledger, executor: Executor) -> Pipeline:
    """The pipeline, if this ledger works on its root: nothing is taken over, and nothing written.

    Raises ConfigurationError where the pipeline has no retention times, NotReady where another
    ledger works on the root, or this one does not know all of it.
    """
    retention_of(settings)
    pipeline = pipeline_at_its_place(settings, ledger, executor)
    demand_ownership(pipeline)
    return pipeline


def retention_of(settings: PipelineSettings) -> RetentionSettings:
    """The retention times. Raises ConfigurationError where there are none."""
    if settings.retention is None:
        raise ConfigurationError(
            f"pipeline {settings.name} keeps everything for ever; set retention in its YAML, such as "
            "retention: {requests: 7d, results: 7d, superseded: 7d, merged: 4w}"
        )
    return settings.retention


def demand_ownership(pipeline: Pipeline) -> None:
    """Raise NotReady where this ledger is not the one that works on the root, or does not know all of it."""
    row, owner = pipeline.ledger.pipeline(pipeline.name), read_owner(pipeline.storage)
    go_on = f"`batch-assets run {pipeline.name}` makes it known"
    if row is None or not same_place(row.root, pipeline.storage.uri) or owner is None:
        raise NotReady(
            f"this ledger does not know {pipeline.storage.uri}, so nothing there is removed; {go_on}"
        )
    if not is_known(owner, row):
        raise NotReady(
            f"another ledger has come to {pipeline.storage.uri} since this one, so nothing there is removed; clean up "
            f"with that one, or {go_on} here again"
        )
    if not pipeline.executor.in_place and not row.recovered:
        raise NotReady(
            f"this ledger does not know yet which jobs of {pipeline.name} are at the service, so nothing is removed; "
            f"{go_on}"
        )


def find_leftovers(pipeline: Pipeline, now: float) -> Leftovers:
    """What would be removed at `now` (unix seconds); nothing is changed."""
    demand_ownership(pipeline)
    times = Times.of(retention_of(pipeline.settings), now)
    found = _nothing(times)
    for leftover in find_due(pipeline, times, now):
        found.kinds[leftover.kind].add(leftover)
    return found


def remove_leftovers(pipeline: Pipeline, now: float, say: Said = lambda _: None) -> Leftovers:
    """Remove what is due at `now`; what was removed. Waits for a merge that goes on, and holds up the next.

    Raises NotReady where another ledger comes to the root meanwhile; what was removed stays so.
    """
    demand_ownership(pipeline)
    times = Times.of(retention_of(pipeline.settings), now)
    removed, ledger, holder = _nothing(times), pipeline.ledger, pipeline.holder
    # A merge reads shards that this takes for left behind, if it began before they were.
    with heartbeat(ledger, holder), exclusive(ledger, f"merge:{pipeline.name}", holder, say):
        for batch in _batches(find_due(pipeline, times, now)):
            demand_ownership(pipeline)
            storage = batch[0].storage
            storage.delete([leftover.path for leftover in batch])
            merged = [one.path for one in batch if one.path.startswith("merged/")]
            remove_empty_folders(storage, merged, shallowest=2)
            # Those of a whole shard's jobs stay.
            remove_empty_folders(storage, {one.path for one in batch}.difference(merged), shallowest=3)
            for leftover in batch:
                removed.kinds[leftover.kind].add(leftover)
    return removed


def _nothing(times: Times) -> Leftovers:
    return Leftovers({kind: KindOfLeftovers() for kind in Kind if kind in times.until})


def _batches(leftovers: Iterable[Leftover]) -> Iterator[list[Leftover]]:
    """Some files of one storage at a time, in the order found."""
    for _, some in itertools.groupby(leftovers, key=lambda leftover: leftover.storage.uri):
        while batch := list(itertools.islice(some, FILES_AT_ONCE)):
            yield batch
