"""What earlier generations have planned: files, columns, and the shards that still count."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from batch_assets.sharding.plan import PlanSummary, Shard
from batch_assets.sharding.plan_files import generations, read_plan
from batch_assets.sources.base import SourceFile
from batch_assets.sources.columns import Column
from batch_assets.storage import Storage


@dataclass
class KnownSource:
    """All that is planned of one source, by the newest word on each file.

    `files` maps paths to files, `shards` has the shards that no later generation supersedes.
    `columns` is None where there is no generation yet, of whatever source.
    """

    generation: int = 0
    columns: Sequence[Column] | None = None
    files: dict[str, SourceFile] = field(default_factory=dict)
    shards: dict[str, Shard] = field(default_factory=dict)
    format: str | None = None

    @property
    def records(self) -> int:
        """Planned records that still count."""
        return sum(shard.records for shard in self.shards.values())


def read_known(storage: Storage, base_uri: str) -> KnownSource:
    """Read all plans under the root; files and shards are those of the source at `base_uri`."""
    known = KnownSource()
    for generation in generations(storage):
        summary, shards = read_plan(storage, generation)
        known.generation = generation
        known.columns = summary.source_columns
        if summary.base_uri == base_uri:
            _add(known, summary, shards)
    return known


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
    known.format = summary.format
