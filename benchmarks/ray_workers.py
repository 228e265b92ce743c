"""Two Ray workers against one, each with one CPU and one thread of torch: planned shards to committed Parquet.

One pool of two workers with the model loaded serves both: where one is measured, the other rests.

    python -m benchmarks.ray_workers [--quick]
"""

import argparse
import json
import tempfile
from collections.abc import Callable
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
from benchmarks.measure import Comparison, report, take_turns

WORKERS, TARGET = 2, 1.7
SHARDS = 8


class OneAtATime(RayExecutor):
    """One job after the other, whatever workers there are."""

    def at_once(self) -> int:
        return 1


def main() -> int:
    """Measure with texts and print it; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="under a minute on two idle cores")
    quick = parser.parse_args().quick
    count, rounds = (400, 3) if quick else (1600, 5)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with (folder / "in.jsonl").open("w", encoding="utf-8") as file:
            for number in range(count):
                text = "How do I read a file line by line, and sort what is in it? " * (1 + number % 7)
                file.write(json.dumps({"id": number, "text": text}) + "\n")
        values = {
            "source": {"uri": str(folder / "in.jsonl")},
            "shards": {"records": count // SHARDS},
            "output": {"root": str(folder / "out")},
        }
        print(
            f"{count:,} texts in {SHARDS} shards, {rounds} rounds in turns; one CPU and one thread a worker"
        )
        comparison = measure(parse_pipeline(values, "benchmark", "benchmark"), rounds)
    return report([comparison])


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
