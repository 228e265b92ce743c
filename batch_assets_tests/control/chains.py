"""Two pipelines of fake executors in one ledger, the second over the first one's shards."""

import os
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from batch_assets.control.collection import collect_shards
from batch_assets.control.pipeline import Pipeline, open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.control.preparation import PreparedShard, prepare_shards, queue_shards
from batch_assets.control.shard_result import Result, ShardResult
from batch_assets.ledger.ledger import Ledger
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline
from batch_assets.sharding.plan import Shard
from batch_assets_tests.command import some_records, write_records
from batch_assets_tests.fakes import FakeHost

PER_SHARD = 4
A, B, C = KEYS = [f"g0001-{number:05d}" for number in range(3)]


def first_settings(folder: Path, **fields: Any) -> PipelineSettings:
    """Reads `folder`/in and writes `folder`/one, four records a shard."""
    values = {
        "source": {"uri": f"{folder}/in", "id_column": "id"},
        "shards": {"records": PER_SHARD},
        "output": {"root": f"{folder}/one"},
    }
    return parse_pipeline({**values, **fields}, "first", "a test")


def second_settings(folder: Path, **fields: Any) -> PipelineSettings:
    """Reads the shards of `first` and writes `folder`/two."""
    source = {"pipeline": "first", "uri": f"shards:{folder}/one", "id_column": "record_id"}
    return parse_pipeline(
        {"source": source, "output": {"root": f"{folder}/two"}, **fields}, "second", "a test"
    )


def write_input(folder: Path, shards: int = 3, name: str = "a", *, bad: Sequence[int] = ()) -> None:
    """Input for so many shards; the records numbered in `bad` have no text."""
    records = some_records(shards * PER_SHARD)
    for number in bad:
        records[number]["text"] = ""
    write_records(folder / "in" / f"{name}.jsonl", records)


@dataclass
class Chain:
    """Both pipelines as a person has them who runs a step at a time."""

    folder: Path
    ledger_name: str = "ledger"
    host: FakeHost = field(default_factory=FakeHost)
    ahead: float = 0.0  # seconds by which the ledger's clock is

    def __post_init__(self) -> None:
        url = f"sqlite:///{self.folder}/{self.ledger_name}.db"
        self.ledger: Ledger = Ledger.open(url, clock=lambda: time.time() + self.ahead)

    def first(self, **fields: Any) -> Pipeline:
        settings = first_settings(self.folder, **fields)
        return open_pipeline(settings, self.ledger, self.host.executor(settings))

    def second(self, **fields: Any) -> Pipeline:
        settings = second_settings(self.folder, **fields)
        return open_pipeline(settings, self.ledger, self.host.executor(settings))

    def states(self, name: str = "second") -> list[str]:
        return [row.state.value for row in self.ledger.shards(name)]


def embed(
    pipeline: Pipeline, keys: Sequence[str] = tuple(KEYS), *, recompute: bool = False
) -> list[ShardResult]:
    """Plan, prepare, queue and collect these shards; how each ended."""
    plan_source(pipeline)
    list(prepare_shards(pipeline, keys))
    queue_shards(pipeline, keys)
    return list(collect_shards(pipeline, keys, recompute=recompute))


def prepare(pipeline: Pipeline, keys: Sequence[str] = tuple(KEYS)) -> dict[str, PreparedShard]:
    return {prepared.key: prepared for prepared in prepare_shards(pipeline, keys)}


def change_text(folder: Path, key: str) -> None:
    """Another text for the first record of a shard, in a file that looks as it did, size and time."""
    file = folder / "in" / "a.jsonl"
    stamp, whole = file.stat(), file.read_bytes()
    lines = whole.splitlines(keepends=True)
    row = KEYS.index(key) * PER_SHARD
    lines[row] = re.sub(rb'"text":"[^"]*"', rb'"text":"another text"', lines[row])
    missing = len(whole) - sum(map(len, lines))
    lines[row] = lines[row][:-2] + b" " * missing + lines[row][-2:]
    file.write_bytes(b"".join(lines))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def all_collected(results: Sequence[ShardResult]) -> bool:
    return {result.result for result in results} <= {Result.COLLECTED, Result.VERIFIED}


def run_first(folder: Path, hangs: Event | None) -> None:
    """The first stage, for a process of its own; with `hangs` it hangs in its second shard, and says so."""

    def before(shard: Shard) -> None:
        if hangs is not None and shard.key == B:
            hangs.set()
            signal.pause()

    assert all_collected(embed(Chain(folder, host=FakeHost(before=before)).first()))
