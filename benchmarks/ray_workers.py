"""Ray workers: two against one, one beside the executor `gpu`, and what the run itself keeps in memory.

Each measures planned shards to committed Parquet. Of two workers each has one CPU and one thread of torch, and one
pool with the model loaded serves both: where one is measured, the other rests. The one beside `gpu` has all cores, as
`gpu` has. The run's memory is measured in a process of its own: what workers write does not pass through it.

    python -m benchmarks.ray_workers [--quick | --smallest]
"""

import contextlib
import itertools
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from batch_assets.control.collection import collect_shards
from batch_assets.control.pipeline import Pipeline, open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.control.preparation import prepare_shards, queue_shards
from batch_assets.control.shard_result import Result
from batch_assets.executors.gpu import GpuMachine
from batch_assets.executors.ray.cluster import RayCluster
from batch_assets.executors.ray.executor import RayExecutor
from batch_assets.ledger.ledger import Ledger
from batch_assets.settings.in_place import GpuExecutorSettings, RayExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline
from benchmarks.arguments import Size, make_parser
from benchmarks.measure import Comparison, Targets, in_new_process, peak_megabytes, report, take_turns

WORKERS, TARGET = 2, 1.8
BESIDE_GPU = 0.95
SHARE_OF_OUTPUT = 0.1
"""Of what a shard has more in vectors, the run may have that much more in memory: nothing of it but noise."""
SHARDS = 8
DIMENSIONS = 384
FEW = 16


@dataclass(frozen=True)
class Counts:
    texts: int
    shards: int
    rounds: int
    in_one_shard: int


COUNTS = {
    Size.FULL: Counts(texts=1600, shards=SHARDS, rounds=5, in_one_shard=40_000),
    Size.QUICK: Counts(texts=400, shards=SHARDS, rounds=3, in_one_shard=20_000),
    Size.SMALLEST: Counts(texts=16, shards=2, rounds=1, in_one_shard=32),
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
        texts = (
            "How do I read a file line by line, and sort what is in it? " * (1 + number % 7)
            for number in range(counts.texts)
        )
        settings = pipeline_of(folder, texts, counts.texts // counts.shards)
        print(
            f"{counts.texts:,} texts in {counts.shards} shards, rounds in turns: {counts.rounds}; "
            "one CPU and one thread for each of two workers, all cores for one beside gpu"
        )
        comparisons = [measure(settings, counts.rounds), beside_gpu(settings, counts.rounds)]
        few, many = (
            in_new_process(memory_of_run, folder / name, texts)
            for name, texts in (("few", FEW), ("many", counts.in_one_shard))
        )
    report(comparisons, targets)
    vectors = (counts.in_one_shard - FEW) * DIMENSIONS * 4 / 1e6
    verdict = targets.judge("memory of the run", many - few <= SHARE_OF_OUTPUT * vectors)
    print(
        f"memory of the run: {many - few:+.1f} MB where a shard has {vectors:,.1f} MB more of vectors; "
        f"target at most {SHARE_OF_OUTPUT * vectors:.1f} MB{verdict}"
    )
    return targets.exit_code()


def pipeline_of(folder: Path, texts: Iterable[str], per_shard: int) -> PipelineSettings:
    """A pipeline of these texts under `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "in.jsonl").open("w", encoding="utf-8") as file:
        for number, text in enumerate(texts):
            file.write(json.dumps({"id": number, "text": text}) + "\n")
    values = {
        "source": {"uri": str(folder / "in.jsonl")},
        "shards": {"records": per_shard},
        "output": {"root": str(folder / "out")},
    }
    return parse_pipeline(values, "benchmark", "benchmark")


def measure(settings: PipelineSettings, rounds: int) -> Comparison:
    """Records per second of two workers beside one, on a Ray started here, which ends again.

    Best with some shards for each worker. The pipeline's executor is replaced.
    """
    settings = _with(settings, _ray(workers=WORKERS, cores=1))
    cluster = RayCluster()
    with _ledger() as ledger, contextlib.closing(cluster):
        two = open_pipeline(settings, ledger, cluster.executor(settings))
        one = open_pipeline(settings, ledger, OneAtATime(cluster, settings))
        plan = _planned(two)
        seconds = _in_turns({"two": _collect(two, plan), "one": _collect(one, plan)}, rounds)
    records = sum(shard.records for shard in two.plan_shards(plan).values())
    rates = {name: [records / each for each in taken] for name, taken in seconds.items()}
    limit = WORKERS * statistics.median(rates["one"])
    return Comparison("two Ray workers against one", "records/s", rates["two"], rates["one"], limit, TARGET)


def beside_gpu(settings: PipelineSettings, rounds: int) -> Comparison:
    """Records per second of one worker with all cores beside the executor `gpu`, each under a root of its own."""
    cluster, here = RayCluster(), GpuMachine("cpu")
    ray = _with(settings, _ray(workers=1, cores=os.cpu_count() or 1), "out-ray")
    gpu = _with(settings, GpuExecutorSettings(device="cpu"), "out-gpu")
    with _ledger() as ledger, _ledger() as another, contextlib.closing(cluster):
        ours = open_pipeline(ray, ledger, cluster.executor(ray))
        peer = open_pipeline(gpu, another, here.executor(gpu))
        plans = _planned(ours), _planned(peer)
        seconds = _in_turns({"ray": _collect(ours, plans[0]), "gpu": _collect(peer, plans[1])}, rounds)
    records = sum(shard.records for shard in ours.plan_shards(plans[0]).values())
    rates = {name: [records / each for each in taken] for name, taken in seconds.items()}
    limit = statistics.median(rates["gpu"])
    return Comparison("one Ray worker beside gpu", "records/s", rates["ray"], rates["gpu"], limit, BESIDE_GPU)


def memory_of_run(folder: Path, texts: int) -> float:
    """The most memory (MB) of a process that has one shard of so many short texts embedded by a Ray worker."""
    settings = _with(pipeline_of(folder, itertools.repeat("read", texts), texts), _ray(workers=1, cores=1))
    with _ledger() as ledger, contextlib.closing(RayCluster()) as cluster:
        pipeline = open_pipeline(settings, ledger, cluster.executor(settings))
        _collect(pipeline, _planned(pipeline))()
        return peak_megabytes()


@contextlib.contextmanager
def _ledger() -> Iterator[Ledger]:
    with tempfile.TemporaryDirectory() as place:
        ledger = Ledger.open(f"sqlite:///{place}/ledger.db")
        try:
            yield ledger
        finally:
            ledger.dispose()


def _ray(*, workers: int, cores: int) -> RayExecutorSettings:
    return RayExecutorSettings(
        type="ray", address="local", workers=workers, gpus_per_worker=0, cpus_per_worker=cores
    )


def _with(
    settings: PipelineSettings, executor: RayExecutorSettings | GpuExecutorSettings, root: str | None = None
) -> PipelineSettings:
    output = settings.output
    if root is not None:
        output = output.model_copy(update={"root": str(Path(output.root).parent / root)})
    return settings.model_copy(update={"executor": executor, "output": output})


def _planned(pipeline: Pipeline) -> list[str]:
    """The keys of the pipeline's shards, ready to be embedded."""
    keys = plan_source(pipeline).all_keys
    list(prepare_shards(pipeline, keys))
    queue_shards(pipeline, keys)
    return keys


def _in_turns(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    for _ in range(2):  # the second: whichever worker was late to the first has loaded by then
        for run in runs.values():
            run()
    return take_turns(runs, rounds)


def _collect(pipeline: Pipeline, keys: list[str]) -> Callable[[], None]:
    def run() -> None:
        results = list(collect_shards(pipeline, keys, recompute=True))
        assert all(result.result is Result.COLLECTED for result in results), results

    return run


if __name__ == "__main__":
    raise SystemExit(main())
