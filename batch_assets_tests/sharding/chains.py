"""A pipeline over another one's shards, by its files alone: the upstream is written, not run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from batch_assets.embeddings.marker import ShardMarker
from batch_assets.embeddings.schema import Task
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline
from batch_assets.sharding.chained import plan_chained
from batch_assets.sharding.manifest import prepare_input, write_input_manifest
from batch_assets.sharding.plan import PlanSummary, Shard
from batch_assets.sharding.plan_files import read_plan, write_plan
from batch_assets.sources.base import Segment
from batch_assets.storage import Storage, open_storage
from batch_assets_tests.embeddings.builders import write_shard
from batch_assets_tests.sharding.planning import Planned

COLUMNS = {"text": "string", "n": "int64", "a.b": "json", "user_embedding": "float64"}
BYTES_PER_RECORD = 40


def plan_upstream(
    root: Storage,
    records: Mapping[str, int],
    *,
    generation: int = 1,
    superseded: Sequence[str] = (),
    columns: Mapping[str, str] = COLUMNS,
    task: Task | None = "embed",
) -> None:
    """A generation of the upstream: so many records in the shard of each key."""
    shards = [
        Shard(key, (Segment("x.jsonl", "1", 0, count, 0, count * BYTES_PER_RECORD, count),))
        for key, count in records.items()
    ]
    summary = PlanSummary(
        generation=generation,
        source_uri="/in",
        format="jsonl",
        columns=dict(columns),
        shards=len(shards),
        records=sum(records.values()),
        bytes=sum(shard.bytes for shard in shards),
        files=(),
        created="2026-01-01T00:00:00+00:00",
        base_uri="/in",
        max_record_bytes=2**24,
        superseded=superseded,
        task=task,
    )
    assert write_plan(root, summary, shards)


def commit(root: Storage, key: str, kinds: str = "eee", *, fence: int = 1, text: str = "text") -> ShardMarker:
    """A committed shard whose record n has the text `<text> <key> n`; a letter of `kinds` for each."""
    valid = [n for n, kind in enumerate(kinds) if kind != "r"]
    values: dict[str, list[Any]] = {
        "text": [f"{text} {key} {n}" for n in valid],
        "n": valid,
        "a.b": ['{"c": 1}'] * len(valid),
        "user_embedding": [0.5] * len(valid),
    }
    return write_shard(root, key, kinds, fence=fence, columns=COLUMNS, values=values)


def over(root: Storage, tmp_path: Path, **source: Any) -> PipelineSettings:
    """A pipeline over the shards under `root`, as `components/` resolves it."""
    resolved = {"uri": f"shards:{root.uri}", "pipeline": "a", "id_column": "record_id", **source}
    return parse_pipeline({"source": resolved, "output": {"root": str(tmp_path / "b")}}, "b", "a test")


def plan_over(settings: PipelineSettings) -> list[Planned]:
    """Plan what the upstream has more, write it, and read it back."""
    storage = open_storage(settings.output.root)
    planned: list[Planned] = []
    for result in plan_chained(settings, storage):
        write_plan(storage, result.summary, result.shards)
        planned.append(Planned(settings, storage, result, *read_plan(storage, result.summary.generation)))
    return planned


def prepared(settings: PipelineSettings) -> Planned:
    """The only generation, with every shard's records checked."""
    [planned] = plan_over(settings)
    for shard in planned.shards:
        write_input_manifest(planned.root, prepare_input(settings, shard, planned.summary, root=planned.root))
    return planned
