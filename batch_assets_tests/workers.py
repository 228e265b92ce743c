"""A pipeline whose shards real workers embed: children of a rehearsed AWS Batch, by a light model, all on S3."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import pytest

from batch_assets.control.loop import take_turn
from batch_assets.control.pipeline import Pipeline
from batch_assets.ledger.states import State
from batch_assets.merge.publishing import open_current
from batch_assets.rehearsal.batch import processes
from batch_assets.settings.pipeline import parse_pipeline
from batch_assets.storage import open_storage
from batch_assets_tests.builders import make_light_model
from batch_assets_tests.command import some_records, write_records
from batch_assets_tests.forking import ForkedProgram, Place, run_worker
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.sites import PER_SHARD, Site
from batch_assets_tests.waiting import wait_until


@dataclass
class WorkerSite(Site):
    """One pipeline at a rehearsed AWS Batch."""

    def first_round(self) -> Pipeline:
        """Upload and submit, and wait until every worker has succeeded; nothing is collected."""
        pipeline, jobs = self.upload(), self.rehearsal.server.batch_jobs.all

        def succeeded() -> bool:
            take_turn([pipeline])
            return {job.status for job in jobs()} == {"SUCCEEDED"}

        wait_until(succeeded, jobs)
        return pipeline

    def rows_published(self, pipeline: Pipeline) -> pl.DataFrame:
        """Merge, publish, and read what is published."""
        from batch_assets.control.merging import merge_shards, publish_merge

        publish_merge(pipeline, merge_shards(pipeline))
        manifest = open_current(pipeline.storage)
        assert manifest is not None
        folder = f"merged/{manifest.version}"
        parts = [pipeline.storage.read(f"{folder}/{part.uri}") for part in manifest.parts]
        return pl.concat([pl.read_parquet(part) for part in parts])

    def crash_on(self, text: str) -> Path:
        """From now on a worker dies of this text, until the file that is returned is there."""
        mended = self.folder / "mended"
        model = Path(self.settings.model.id) / "model.py"
        model.write_text(
            model.read_text().replace(
                "    def encode(self, items):",
                "    def encode(self, items):\n"
                "        import os\n"
                f"        texts = [item['text'] for item in items]\n"
                f"        if {text!r} in texts and not os.path.exists({str(mended)!r}):\n"
                "            os._exit(3)",
            )
        )
        return mended

    def runs(self) -> dict[str, int]:
        """How often a worker was started for each shard, by the notes that workers leave."""
        storage = open_storage(self.settings.output.root)
        runs = [info.path.split("/")[1] for info in storage.list("shards") if "/run-" in info.path]
        return {key: runs.count(key) for key in sorted(set(runs))}

    def sizes(self) -> list[int]:
        """The children of every job that was submitted, in order; 1 for a plain job."""
        return [len(job.children) or 1 for job in self.rehearsal.server.batch_jobs.all()]


def fork_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a rehearsal fork its workers from a process that has imported what they need, seconds each."""
    begin = processes.begin_process

    def fork(command: Sequence[str], environment: Mapping[str, str], folder: Path, log: BinaryIO) -> Any:
        if list(command[1:3]) != ["-m", "batch_assets.worker"]:
            return begin(command, environment, folder, log)
        return ForkedProgram(run_worker, command[2:], environment, Place(str(folder), log.name, log.name))

    monkeypatch.setattr(processes, "begin_process", fork)


def make_worker_site(
    rehearsal: Rehearsal, folder: Path, shards: int = 3, *, extra: int = 0, **fields: Any
) -> WorkerSite:
    """A pipeline of so many shards, and `extra` records in one more, with source and root on S3."""
    write_records(folder / "in.jsonl", some_records(shards * PER_SHARD + extra))
    rehearsal.client("s3").upload_file(str(folder / "in.jsonl"), rehearsal.bucket, "in/in.jsonl")
    model = make_light_model(folder / "model")
    values = {
        "source": {"uri": f"s3://{rehearsal.bucket}/in/", "id_column": "id", "format": "jsonl"},
        "model": {"id": str(model), "trust_remote_code": True},
        "shards": {"records": PER_SHARD},
        "output": {"root": f"s3://{rehearsal.bucket}/out"},
        **fields,
        "executor": {
            "type": "aws_batch",
            "job_queue": "embeddings",
            "image": "worker:1",
            "poll_seconds": 0.05,
            "gpus": 0,
            **fields.get("executor", {}),
        },
    }
    return WorkerSite(rehearsal, folder, parse_pipeline(values, "texts", "a test"))


def vectors_of(texts: list[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What the light model makes of texts, at length 1."""
    seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") for text in texts]
    vectors = np.array([np.random.default_rng(seed).standard_normal(8) for seed in seeds])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def assert_all_published(site: WorkerSite, records: list[dict[str, Any]]) -> None:
    """These records, once each, in order, with their own vectors; nothing runs any more."""
    assert set(site.states()) == {State.COLLECTED}
    rows = site.rows_published(site.open())
    assert rows["record_id"].to_list() == [record["id"] for record in records]
    expected = vectors_of([str(record["text"]) for record in records])
    assert np.allclose(np.array(rows["embedding"].to_list()), expected, atol=1e-5)
    assert {job.status for job in site.rehearsal.server.batch_jobs.all()} <= {"SUCCEEDED", "FAILED"}
