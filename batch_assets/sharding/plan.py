"""What a plan is: shards as lists of segments of source files, and its files under the root.

How a source is cut is in `planner.py`; what became of a shard afterwards is the ledger's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from batch_assets.sources.base import Segment, SourceFile


@dataclass(frozen=True)
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
class PlanSummary:
    """One generation: `plan/g0001.json`. `columns` maps each passed-through column to its type.

    The types: `int64`, `float64`, `bool`, `string`, and `json` for a mixed or nested column,
    stored as JSON text. `columns` holds the text and id columns too where they pass through.
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
