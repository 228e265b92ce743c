"""Two Ray workers against one, each with one CPU and one thread of torch: planned shards to committed Parquet.

One pool of two workers with the model loaded serves both: where one is measured, the other rests.

    python -m benchmarks.ray_workers [--quick | --smallest]
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch_assets.control.collection import collect_shards
from batch_assets.control.pipeline import Pipeline, open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.control.preparation import prepare_shards, queue_shards
from batch_assets.control.shard_result import Result
from batch_assets.executors.ray.cluster import RayCluster
from batch_assets.executors.ray.executor import RayExecutor
from batch_assets.ledger.ledger import Ledger
from batch_assets.settings.in_place import RayExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline
from benchmarks.arguments import Size, make_parser
from benchmarks.measure import Comparison, Targets, report, take_turns

WORKERS, TARGET = 2, 1.7
SHARDS = 8


@dataclass(frozen=True)
class Counts:
    texts: int
    shards: int
    rounds: int


COUNTS = {
    Size.FULL: Counts(texts=1600, shards=SHARDS, rounds=5),
    Size.QUICK: Counts(texts=400, shards=SHARDS, rounds=3),
    Size.SMALLEST: Counts(texts=16, shards=2, rounds=1),
}


class OneAtATime(RayExecutor):
    """One job after the other, whatever workers there are."""

    def at_once(self) -> int:
        return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure with texts and print it; the exit code."""
    size: Size = make_parser(__doc__).parse_args(arguments).size
    counts, targets = COUNTS[size], Targets(size.judged)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with (folder / "in.jsonl").open("w", encoding="utf-8") as file:
            for number in range(counts.texts):
                text = "How do I read a file line by line, and sort what is in it? " * (1 + number % 7)
                file.write(json.dumps({"id": number, "text": text}) + "\n")
        values = {
            "source": {"uri": str(folder / "in.jsonl")},
            "shards": {"records": counts.texts // counts.shards},
            "output": {"root": str(folder / "out")},
        }
        print(
            f"{counts.texts:,} texts in {counts.shards} shards, rounds in turns: {counts.rounds}; "
            "one CPU and one thread a worker"
        )
        comparison = measure(parse_pipeline(values, "benchmark", "benchmark"), counts.rounds)
    report([comparison], targets)
    return targets.exit_code()


def measure(settings: PipelineSettings, rounds: int) -> Comparison:
    """Records per second of two workers beside one, on a Ray started here, which ends again.

    The pipeline is planned under its output root, with a ledger beside it; best with some shards
    for each worker. Its executor is replaced.
    """
    executor = RayExecutorSettings(
        type="ray", address="local", workers=WORKERS, gpus_per_worker=0, cpus_per_worker=1
    )
    settings = settings.model_copy(update={"executor": executor})
    cluster = RayCluster()
    with tempfile.TemporaryDirectory() as place:
        ledger = Ledger.open(f"sqlite:///{place}/ledger.db")
        two = open_pipeline(settings, ledger, cluster.executor(settings))
        one = open_pipeline(settings, ledger, OneAtATime(cluster, settings))
        plan = plan_source(two)
        list(prepare_shards(two, plan.all_keys))
        queue_shards(two, plan.all_keys)
        try:
            for warm_up in (_collect(two, plan.all_keys), _collect(two, plan.all_keys)):
                warm_up()  # the second: whichever worker was late to the first has loaded by then
            runs: dict[str, Callable[[], Any]] = {
                "two": _collect(two, plan.all_keys),
                "one": _collect(one, plan.all_keys),
            }
            seconds = take_turns(runs, rounds)
        finally:
            cluster.close()
            ledger.dispose()
    rates = {name: [plan.records / each for each in taken] for name, taken in seconds.items()}
    limit = WORKERS * sorted(rates["one"])[rounds // 2]
    return Comparison("two Ray workers against one", "records/s", rates["two"], rates["one"], limit, TARGET)


def _collect(pipeline: Pipeline, keys: list[str]) -> Callable[[], None]:
    def run() -> None:
        results = list(collect_shards(pipeline, keys, recompute=True))
        assert all(result.result is Result.COLLECTED for result in results), results

    return run


if __name__ == "__main__":
    raise SystemExit(main())
