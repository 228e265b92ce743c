"""What earlier generations have planned: files, columns, and the shards that still count."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from batch_assets.sharding.plan import PlanSummary, Shard
from batch_assets.sharding.plan_files import generations, read_plan, read_summary
from batch_assets.sharding.snapshot import Snapshot, plans_named, read_snapshot, write_snapshot
from batch_assets.sources.base import SourceFile
from batch_assets.sources.column_kinds import Column
from batch_assets.storage import Storage

GENERATIONS_APART = 64
"""Every so many generations a snapshot is written; a round reads the plans behind the newest one."""


@dataclass
class KnownSource:
    """All that is planned of one source, by the newest word on each file.

    `files` maps paths to files, `shards` has the shards that no later generation supersedes.
    `columns` is None where there is no generation yet, of whatever source. `partitions` and `format` are the
    newest generation's of this source. Where the generations
    up to `snapshot` come from a snapshot, their shards are not in `shards`, and `earlier_records`
    is how many records these have.
    """

    base_uri: str
    generation: int = 0
    columns: Sequence[Column] | None = None
    partitions: Mapping[str, str] = field(default_factory=dict)
    format: str | None = None
    files: dict[str, SourceFile] = field(default_factory=dict)
    shards: dict[str, Shard] = field(default_factory=dict)
    snapshot: int = 0
    earlier_records: int = 0

    @property
    def records(self) -> int:
        """Planned records that still count."""
        return self.earlier_records + sum(shard.records for shard in self.shards.values())


def read_known(storage: Storage, base_uri: str, *, with_shards: bool = True) -> KnownSource:
    """What is planned under the root; files and shards are those of the source at `base_uri`.

    All plans are read, or, without all the shards, those behind the newest snapshot.
    """
    planned = generations(storage)
    known = KnownSource(base_uri)
    start = None if with_shards or len(planned) < GENERATIONS_APART else read_snapshot(storage, base_uri)
    if start is not None and start.generation in planned:
        newest = read_summary(storage, start.generation)
        if start.plans == plans_named(planned[: planned.index(start.generation) + 1], newest):
            known.files, known.snapshot, known.earlier_records = start.files, start.generation, start.records
            known.generation = start.generation
            known.columns = newest.source_columns
            if newest.base_uri == base_uri:
                known.partitions, known.format = newest.partitions, newest.format
    for generation in planned:
        if generation <= known.snapshot:
            continue
        summary, shards = read_plan(storage, generation)
        if summary.superseded and known.snapshot:
            return read_known(storage, base_uri)  # whose files these were, only the shards tell
        known.generation = generation
        known.columns = summary.source_columns
        if summary.base_uri == base_uri:
            known.partitions, known.format = summary.partitions, summary.format
            _add(known, summary, shards)
    return known


def remember_known(storage: Storage, base_uri: str, generation: int) -> None:
    """Write a snapshot for later rounds, where one is due at this generation, which is written already."""
    if generation % GENERATIONS_APART == 0:
        known = read_known(storage, base_uri, with_shards=False)
        plans = plans_named(generations(storage), read_summary(storage, known.generation))
        write_snapshot(storage, base_uri, Snapshot(known.generation, plans, known.records, known.files))


def _add(known: KnownSource, summary: PlanSummary, shards: Sequence[Shard]) -> None:
    replaced = set(summary.superseded)
    if replaced:
        # Files of which nothing counts any more are known no longer: removed ones, that is.
        before = {s.path for key in replaced & known.shards.keys() for s in known.shards[key].segments}
        known.shards = {key: shard for key, shard in known.shards.items() if key not in replaced}
        after = {s.path for shard in (*known.shards.values(), *shards) for s in shard.segments}
        for path in before - after:
            known.files.pop(path, None)
    known.files |= {file.path: file for file in summary.files}
    known.shards |= {shard.key: shard for shard in shards}
