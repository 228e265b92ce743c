"""A pipeline whose leftovers are found and removed, at a time that the test names."""

import gzip
import time
from pathlib import Path

import orjson
import pyarrow.parquet as pq

from batch_assets.control.cleanup import Leftovers, find_leftovers, owned_pipeline, remove_leftovers
from batch_assets.control.collection import collect_shards
from batch_assets.control.merging import merge_shards, publish_merge
from batch_assets.control.pipeline import Pipeline, open_pipeline
from batch_assets.control.preparation import queue_shards
from batch_assets.embeddings.schema import FAILURES_SCHEMA
from batch_assets_tests.command import some_records
from batch_assets_tests.control.builders import PER_SHARD, embed_all, make_settings, open_ledger, run
from batch_assets_tests.fakes import FakeHost

DAY = 86_400.0
WEEK = dict.fromkeys(("requests", "results", "spools", "superseded", "merged"), "7d")
LATER = 8 * DAY


class Cleaned:
    """A pipeline in place over three compressed files, a shard each, all embedded and published."""

    def __init__(self, folder: Path, retention: dict[str, str] | None = None) -> None:
        self.folder, self.host = folder, FakeHost()
        for number, name in enumerate("abc"):
            self.write(name, number)
        source = {"uri": f"{folder}/in", "id_column": "id"}
        self.settings = make_settings(
            folder, source=source, retention=WEEK if retention is None else retention
        )
        self.ledger = open_ledger(folder)
        run(self.settings, self.ledger, self.host)

    def write(self, name: str, number: int) -> None:
        records = some_records(3 * PER_SHARD)[number * PER_SHARD :][:PER_SHARD]
        (self.folder / "in").mkdir(exist_ok=True)
        lines = b"".join(orjson.dumps(record) + b"\n" for record in records)
        (self.folder / "in" / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines))

    @property
    def root(self) -> Path:
        return self.folder / "out"

    def open(self) -> Pipeline:
        return open_pipeline(self.settings, self.ledger, self.host.executor(self.settings))

    def owned(self) -> Pipeline:
        return owned_pipeline(self.settings, self.ledger, self.host.executor(self.settings))

    def recompute(self, *keys: str) -> None:
        """Embed shards again, and publish that."""
        pipeline = self.open()
        queue_shards(pipeline, keys, recompute=True)
        list(collect_shards(pipeline, keys, recompute=True))
        self.publish()

    def publish(self) -> None:
        pipeline = self.open()
        publish_merge(pipeline, merge_shards(pipeline))

    def add(self, name: str) -> None:
        """One more file, embedded and published."""
        self.write(name, len(list((self.folder / "in").iterdir())) % 3)
        embed_all(self.settings, self.ledger, self.host)
        self.publish()

    def put(self, path: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(b"evidence")

    def put_data(self, path: str) -> None:
        """A data file as a writer has left it."""
        pq.write_table(FAILURES_SCHEMA.empty_table(), self.root / path)

    def find(self, after: float = LATER) -> Leftovers:
        return find_leftovers(self.owned(), time.time() + after)

    def remove(self, after: float = LATER) -> Leftovers:
        return remove_leftovers(self.owned(), time.time() + after)

    def files(self) -> set[str]:
        return {path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file()}


def counted(found: Leftovers) -> dict[str, int]:
    return {kind.value: one.files for kind, one in found.kinds.items() if one.files}
