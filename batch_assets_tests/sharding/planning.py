"""Planning and reading as the pipeline does them, in one call each, for tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline
from batch_assets.sharding.plan import PlanSummary, Shard
from batch_assets.sharding.plan_files import read_plan, write_plan
from batch_assets.sharding.planner import PlanResult, plan_generation
from batch_assets.sharding.reading import read_shard
from batch_assets.sources.base import Records, Rejection
from batch_assets.storage import Storage, open_storage


@dataclass
class Planned:
    """A written generation, read back."""

    settings: PipelineSettings
    root: Storage
    result: PlanResult
    summary: PlanSummary
    shards: list[Shard]

    def read(self, shard: Shard) -> list[Records]:
        return list(read_shard(self.settings, shard, self.summary, self.root))

    def records(self) -> list[Records]:
        return [records for shard in self.shards for records in self.read(shard)]

    def rows(self) -> list[tuple[str, int]]:
        """(file, row) of every record, valid or not, in the order of ordinals."""
        found: list[tuple[str, int]] = []
        for shard in self.shards:
            by_ordinal: dict[int, tuple[str, int]] = {}
            for records in self.read(shard):
                places = zip(records.source_files, records.source_rows, strict=True)
                by_ordinal |= dict(zip(records.ordinals, places, strict=True))
                by_ordinal |= {r.ordinal: (r.source_file, r.source_row) for r in records.rejections}
            assert sorted(by_ordinal) == list(range(shard.records))
            found += [by_ordinal[ordinal] for ordinal in range(shard.records)]
        return found

    def texts(self) -> list[str]:
        return [text for records in self.records() for text in records.texts]

    def ids(self) -> list[str]:
        return [name for records in self.records() for name in records.record_ids]

    def rejections(self) -> list[Rejection]:
        return [rejection for records in self.records() for rejection in records.rejections]

    def columns(self) -> dict[str, list[Any]]:
        """Values of each passed-through column."""
        found: dict[str, list[Any]] = {name: [] for name in self.summary.columns}
        for records in self.records():
            for name, values in records.columns.to_pydict().items():
                found[name] += values
        return found


def settings_of(
    uri: object,
    root: object,
    shards: dict[str, Any] | None = None,
    merge_by: str | None = None,
    **source: Any,
) -> PipelineSettings:
    values = {
        "source": {"uri": str(uri), **source},
        "shards": shards or {},
        "output": {"root": str(root)},
        "merge_by": merge_by,
    }
    return parse_pipeline(values, "test", "test")


def plan(
    uri: object,
    root: object,
    shards: dict[str, Any] | None = None,
    *,
    min_records: int = 0,
    replace: bool = False,
    merge_by: str | None = None,
    **source: Any,
) -> Planned:
    """Plan the next generation, write it, read it back."""
    settings = settings_of(uri, root, shards, merge_by, **source)
    storage = open_storage(str(root))
    result = plan_generation(settings, storage, min_records=min_records, replace=replace)
    write_plan(storage, result.summary, result.shards)
    summary, read = read_plan(storage, result.summary.generation)
    return Planned(settings, storage, result, summary, read)


def write_lines(path: Path, lines: Sequence[bytes | str], end: bytes = b"\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = [line.encode() if isinstance(line, str) else line for line in lines]
    path.write_bytes(b"\n".join(encoded) + (end if lines else b""))
    return path
