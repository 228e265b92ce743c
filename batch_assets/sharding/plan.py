"""What a plan is: shards as lists of segments of source files, and its files under the root.

How a source is cut is in `planner.py`; what became of a shard afterwards is the ledger's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from batch_assets.embeddings.schema import Task
from batch_assets.sharding.unreadable import Unreadable
from batch_assets.sources.base import Segment, SourceFile
from batch_assets.sources.column_kinds import Column
from batch_assets.sources.record_ids import NO_IDS, IdCount, IdCounter


@dataclass(frozen=True, slots=True)
class Shard:
    """An immutable slice of the source: one Dagster partition."""

    key: str
    segments: tuple[Segment, ...]

    @property
    def records(self) -> int:
        return sum(segment.records for segment in self.segments)

    @property
    def bytes(self) -> int:
        return sum(segment.last_byte - segment.first_byte for segment in self.segments)


@dataclass(frozen=True)
class PlannedTable:
    """The version of a table that a generation was planned from.

    `files` is the digest (hex) of what it says of the data files that the generation has planned.
    """

    version: str
    files: str


@dataclass(frozen=True)
class PlanSummary:
    """One generation: `plan/g0001.json`. `columns` maps each passed-through column to its type.

    The types are those of `sources/column_types.py`. `columns` holds the text and id columns too where
    they pass through. Its names are the output's: a source column that has another name there is in
    `renamed`. A column may have another type than in the generation before, and may be missing in one.

    `records` and `bytes` are those of this generation's shards. `files` are the source files
    that it planned; they come with `read_plan`, not with `read_summary`. Paths are relative to
    `base_uri`: `source_uri`, or the folder of a single file. The shards in `superseded`, of
    earlier generations, are replaced by this one's. `task` is what the pipeline makes of its records;
    None in the plans of versions that did not say. `table` is there where the source is a table, whose
    files alone do not say which rows it has. `partitions` are the columns that stand in the names of the source's
    folders, each with its type (see `sources/hive.py`); none in the plans of versions that did not know any.
    """

    generation: int
    source_uri: str
    format: str
    columns: dict[str, str]
    shards: int
    records: int
    bytes: int
    files: Sequence[SourceFile]
    created: str
    base_uri: str
    max_record_bytes: int
    renamed: Mapping[str, str] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    superseded: Sequence[str] = ()
    task: Task | None = None
    table: PlannedTable | None = None
    partitions: Mapping[str, str] = field(default_factory=dict)

    @property
    def source_columns(self) -> tuple[Column, ...]:
        """The columns with their names in the source."""
        return tuple(
            Column(stored, self.renamed.get(stored, stored), type) for stored, type in self.columns.items()
        )


@dataclass(frozen=True)
class PlanResult:
    """A generation to be written.

    `touched` and `removed` are paths of planned files that have changed or gone; without
    `replace` they are only named. `unchanged` are those that are listed as they were planned. `notes`
    say what a person should know of the files' contents, `merged` has the columns' types beside the
    generation before. `ids` are those of the records that this generation reads, rejected ones among
    them. `table_version` is the table's that was looked at, of which nothing new is planned where it
    `waits`. `unreadable` are files that are left out, since nothing can be made of them.
    """

    summary: PlanSummary
    shards: Sequence[Shard]
    touched: Sequence[str] = ()
    removed: Sequence[str] = ()
    unchanged: frozenset[str] = frozenset()
    notes: Sequence[str] = ()
    merged: Mapping[str, str] = field(default_factory=dict)
    ids: IdCount = NO_IDS
    counter: IdCounter | None = None
    table_version: str | None = None
    waits: bool = False
    unreadable: Sequence[Unreadable] = ()

    @property
    def changes(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.shards or self.summary.superseded or self.summary.files)


def group_consecutive(all_keys: Sequence[str], wanted: Iterable[str], most: int) -> list[list[str]]:
    """Split `wanted` into groups of at most `most` keys that stand side by side in `all_keys`."""
    chosen = set(wanted)
    groups: list[list[str]] = []
    adjacent = False
    for key in all_keys:
        if key not in chosen:
            adjacent = False
            continue
        if adjacent and len(groups[-1]) < most:
            groups[-1].append(key)
        else:
            groups.append([key])
        adjacent = True
    return groups
