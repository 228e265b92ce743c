"""Two stages at AWS Batch, chained shard by shard, beside the same two with a barrier between them.

Real worker processes before an AWS of localhost; each stage has a queue of its own with a few children
at once, as stages have that need different machines. How long a shard takes is written in its
records, differently for each stage; a worker sleeps so long, so that the figures are the
scheduling's and not this machine's. The limit is what a scheduler without any overhead would reach.

    python -m benchmarks.array_pipelining [--quick | --smallest]
"""

import heapq
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from batch_assets.control.chaining import startable_shards
from batch_assets.control.collection import collect_shards
from batch_assets.control.loop import take_turn
from batch_assets.control.pipeline import Pipeline, open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.control.preparation import prepare_shards, queue_shards
from batch_assets.executors.aws_batch.account import AwsBatchAccount
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.server import RehearsalServer
from batch_assets.settings.pipeline import parse_pipeline
from benchmarks.arguments import Size, make_parser
from benchmarks.measure import Comparison, Targets, report, take_turns

TARGET = 1.3
CHILDREN = 2  # of each stage at once
PER_SHARD = 8
SPREAD = 0.7  # the sigma of the logarithm of the seconds that a shard takes
REGION, BUCKET = "us-east-1", "benchmark"
STAGES = ("first", "second")
CALM = {"batch": {"at_once": 2 * CHILDREN + 2,
                  "timing": dict.fromkeys(("submitted", "runnable", "starting", "running"), (0, 0))}}  # fmt: skip
MODEL = """import hashlib
import time

import numpy as np


class ModelImpl:
    def load(self):
        pass

    def encode(self, items):
        texts = [item["text"] or "" for item in items]
        time.sleep(sum(float(text.split()[STAGE]) for text in texts if text[:1].isdigit()))
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") for text in texts]
        return [np.random.default_rng(seed).standard_normal(8) for seed in seeds]
"""


@dataclass(frozen=True)
class Counts:
    shards: int
    rounds: int
    median_seconds: float  # of a shard in a stage


COUNTS = {
    Size.FULL: Counts(shards=16, rounds=3, median_seconds=3.0),
    Size.QUICK: Counts(shards=6, rounds=1, median_seconds=2.2),
    Size.SMALLEST: Counts(shards=2, rounds=1, median_seconds=0.05),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print it; the exit code."""
    size: Size = make_parser(__doc__).parse_args(arguments).size
    counts, targets = COUNTS[size], Targets(size.judged)
    shards, rounds = counts.shards, counts.rounds
    chance = random.Random(1)
    seconds = [
        tuple(counts.median_seconds * chance.lognormvariate(0.0, SPREAD) for _ in STAGES)
        for _ in range(shards)
    ]
    shortest, longest = min(map(min, seconds)), max(map(max, seconds))
    print(
        f"{shards} shards in two stages, {CHILDREN} children each at once, {shortest:.1f} to {longest:.1f} s a shard "
        f"and stage; rounds in turns: {rounds}"
    )
    with tempfile.TemporaryDirectory() as place, aws() as server:
        folder, numbers = Path(place), count()
        write_input(folder, seconds, server)

        def runs(barrier: bool) -> Callable[[], None]:
            return lambda: run(folder, f"run-{next(numbers)}", shards, barrier=barrier)

        taken = take_turns({"chained": runs(False), "barrier": runs(True)}, rounds)
    rates = {name: [60 * shards / each for each in walls] for name, walls in taken.items()}
    limit = 60 * shards / critical_path(seconds)
    name = "chained against a barrier"
    report([Comparison(name, "shards/min", rates["chained"], rates["barrier"], limit, TARGET)], targets)
    return targets.exit_code()


def critical_path(seconds: Sequence[tuple[float, ...]]) -> float:
    """When the last shard's second stage ends where nothing costs time but the work: first come, first served."""
    ready = [0.0] * len(seconds)
    for stage in range(len(STAGES)):
        free = [0.0] * CHILDREN
        ended = list(ready)
        for shard in sorted(range(len(seconds)), key=lambda one: (ready[one], one)):
            ended[shard] = max(heapq.heappop(free), ready[shard]) + seconds[shard][stage]
            heapq.heappush(free, ended[shard])
        ready = ended
    return max(ready)


@contextmanager
def aws() -> Iterator[RehearsalServer]:
    """AWS Batch and S3 on localhost, where this process's and the workers' clients find them."""
    with RehearsalServer(Scenario.of(CALM), speed=1.0) as server:
        os.environ.update(
            AWS_ENDPOINT_URL=server.endpoint,
            AWS_ACCESS_KEY_ID="key",
            AWS_SECRET_ACCESS_KEY="secret",
            AWS_REGION=REGION,
            AWS_DEFAULT_REGION=REGION,
        )
        yield server


def write_input(folder: Path, seconds: Sequence[tuple[float, ...]], server: RehearsalServer) -> None:
    """The records on S3, and each stage's model: a file that sleeps as long as its records say."""
    import boto3

    client = boto3.client("s3", endpoint_url=server.endpoint, region_name=REGION)
    client.create_bucket(Bucket=BUCKET)
    lines = [
        json.dumps(
            {"id": f"{shard}-{number}", "text": " ".join(f"{each / PER_SHARD:.4f}" for each in of_shard)}
        )
        for shard, of_shard in enumerate(seconds)
        for number in range(PER_SHARD)
    ]
    client.put_object(Bucket=BUCKET, Key="in/in.jsonl", Body="\n".join(lines).encode())
    for number, stage in enumerate(STAGES):
        (folder / stage).mkdir()
        (folder / stage / "config.json").write_text(json.dumps({"name": stage, "batch_size": 64}))
        (folder / stage / "model.py").write_text(MODEL.replace("STAGE", str(number)))


def run(folder: Path, name: str, shards: int, *, barrier: bool) -> None:
    """Both stages from their plans to the last commit; with a barrier the second one begins when the first is done."""
    ledger = Ledger.open(f"sqlite:///{folder}/{name}.db")
    account = AwsBatchAccount()
    first, second = (_open(folder, name, stage, ledger, account) for stage in STAGES)
    for pipeline in (first, second):
        plan_source(pipeline)
    while _collected(second) < shards:
        _step(first)
        if not barrier or _collected(first) == shards:
            _step(second)
        time.sleep(0.05)
    assert ledger.totals(second.name).embedded == shards * PER_SHARD
    ledger.dispose()


def _open(folder: Path, name: str, stage: str, ledger: Ledger, account: AwsBatchAccount) -> Pipeline:
    root = f"s3://{BUCKET}/{name}"
    source: dict[str, Any] = {"uri": f"s3://{BUCKET}/in/", "id_column": "id"}
    if stage != STAGES[0]:
        source = {"pipeline": STAGES[0], "uri": f"shards:{root}/{STAGES[0]}", "id_column": "record_id"}
    values = {
        "source": source,
        "model": {"id": str(folder / stage), "trust_remote_code": True},
        "shards": {"records": PER_SHARD},
        "output": {"root": f"{root}/{stage}"},
        "executor": {
            "type": "aws_batch",
            "job_queue": stage,
            "image": "worker:1",
            "gpus": 0,
            "poll_seconds": 0.2,
            "max_children": CHILDREN,
        },
    }
    settings = parse_pipeline(values, stage, "the benchmark")
    return open_pipeline(settings, ledger, account.executor(settings))


def _collected(pipeline: Pipeline) -> int:
    return pipeline.ledger.counts(pipeline.name)[State.COLLECTED]


def _step(pipeline: Pipeline) -> None:
    """What a sensor's tick and its runs do: prepare what is ready, submit, collect."""
    rows = startable_shards(pipeline.settings, pipeline.ledger, (State.PLANNED, State.PREPARED))
    if rows:
        keys = [row.key for row in rows]
        list(prepare_shards(pipeline, keys))
        queue_shards(pipeline, keys)
    take_turn([pipeline])
    ended = [row.key for row in pipeline.ledger.finished(pipeline.name, 1000)]
    if ended:
        list(collect_shards(pipeline, ended))
    given_up = pipeline.ledger.shards(pipeline.name, states=[State.EXHAUSTED])
    assert not given_up, [row.error for row in given_up]


if __name__ == "__main__":
    raise SystemExit(main())
