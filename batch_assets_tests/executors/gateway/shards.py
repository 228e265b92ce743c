"""A shard of records, sent to a model server by the executor gateway, and what became of each."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from batch_assets.embeddings.marker import ShardMarker
from batch_assets.executors.gateway.servers import ModelServers
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline
from batch_assets.sharding.plan_files import write_plan
from batch_assets.sharding.planner import plan_generation
from batch_assets.storage import open_storage
from batch_assets.worker.attempt import Attempt, follow
from batch_assets_tests.gateway.computing import vectors_of

DIMENSIONS = 384


@dataclass(frozen=True)
class Sent:
    """What a shard's files hold, by record id."""

    marker: ShardMarker
    rows: pl.DataFrame
    failures: pl.DataFrame

    @property
    def codes(self) -> dict[str, str]:
        return dict(zip(self.failures["record_id"], self.failures["error_code"], strict=True))

    @property
    def tries(self) -> dict[str, int]:
        return dict(zip(self.failures["record_id"], self.failures["attempts"], strict=True))

    @property
    def responses(self) -> dict[str, str]:
        return dict(zip(self.rows["record_id"], self.rows["response"], strict=True))

    def own_vectors(self, texts: dict[str, str]) -> bool:
        """Whether each record has the vector of its own text."""
        ids = self.rows["record_id"].to_list()
        wanted = vectors_of([texts[each] for each in ids], DIMENSIONS)
        return np.allclose(self.rows["embedding"].to_numpy(), wanted, atol=1e-5)


def pipeline_at(
    folder: Path, url: str, records: Sequence[dict[str, Any]], **attributes: Any
) -> PipelineSettings:
    """A pipeline over the records that calls the server; `executor` and `model` add to what they have."""
    folder.mkdir(exist_ok=True)
    (folder / "in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    model = {"id": "test-model", **attributes.pop("model", {})}
    executor = {"type": "gateway", "base_url": url, **attributes.pop("executor", {})}
    source = {"uri": str(folder / "in.jsonl"), "id_column": "id"}
    values = {"source": source, "model": model, "executor": executor, "output": {"root": str(folder / "out")}}
    return parse_pipeline(values | attributes, "served", "the test")


def texts(count: int) -> dict[str, str]:
    """Records' ids and texts, all different."""
    return {f"r{number}": f"the text number {number} ." for number in range(count)}


def records_of(texts: dict[str, str]) -> list[dict[str, Any]]:
    return [{"id": key, "text": text} for key, text in texts.items()]


def send(settings: PipelineSettings, servers: ModelServers | None = None) -> Sent:
    """Have the pipeline's first shard answered, and read what was committed."""
    storage = open_storage(settings.output.root)
    planned = plan_generation(settings, storage)
    write_plan(storage, planned.summary, planned.shards)
    runner = (servers or ModelServers()).executor(settings)
    told = Attempt(
        settings, planned.shards[0], 1, 1, runner.fingerprint(), "gateway", "job", task=runner.task
    )
    marker = follow(runner.run(told, storage))
    rows, failures = (
        pl.read_parquet(storage.read(file.path)) for file in (marker.embeddings, marker.failures)
    )
    return Sent(marker, rows, failures)
