"""What a pipeline costs beside its computing: planning, partitions, ledger, status and ticks, by shards.

`python -m benchmarks.scale [--quick | --smallest]` prints milliseconds at 200, 2,000 and 20,000 shards, the
growth from 2,000 to 20,000, and the target: whatever runs on a tick must not grow with the
number of shards. (From 200 on a tick may grow until it handles as many as it ever does.) Exits 1
where it does.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg

from batch_assets.control.pipeline import open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.control.status import read_status
from batch_assets.executors.registry import EXECUTOR_HOSTS, create_host
from batch_assets.ledger.holder import Holder
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets.orchestration.partitions import add_partitions
from batch_assets.orchestration.pipeline import build_pipeline_definitions
from batch_assets.orchestration.sensors.job_completion import build_job_completion
from batch_assets.orchestration.sensors.merge_ready import build_merge_ready
from batch_assets.orchestration.sensors.new_input import build_new_input
from batch_assets.settings.pipeline import OutputSettings, PipelineSettings, ShardSettings
from batch_assets.settings.project import LEDGER, NOTIFICATIONS, executor_key
from batch_assets.settings.source import SourceSettings
from benchmarks.arguments import Size, make_parser
from benchmarks.measure import Targets

MOST_GROWTH = 1.5
NOISE_MILLISECONDS = 5.0

ON_A_TICK = (
    "claim and release one shard",
    "status",
    "tick job_completion",
    "tick merge_ready",
    "tick new_input",
)


Result = TypeVar("Result")


@dataclass(frozen=True)
class Counts:
    shards: tuple[int, ...]
    repeats: int


COUNTS = {
    Size.FULL: Counts(shards=(200, 2_000, 20_000), repeats=15),
    Size.QUICK: Counts(shards=(200, 2_000, 20_000), repeats=5),
    Size.SMALLEST: Counts(shards=(5, 10, 20), repeats=1),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure with every number of shards and print one table; the exit code."""
    size: Size = make_parser(__doc__).parse_args(arguments).size
    counts, targets = COUNTS[size], Targets(size.judged)
    columns: list[dict[str, float]] = []
    for shards in counts.shards:
        with tempfile.TemporaryDirectory() as folder:
            columns.append(measure(Path(folder), shards, counts.repeats))
    print(
        "milliseconds (median)".ljust(32)
        + "".join(f"{shards:>12,}" for shards in counts.shards)
        + f"{'growth':>10}  target"
    )
    for name in columns[0]:
        values = [column[name] for column in columns]
        growth = values[-1] / max(values[-2], 1e-3)
        target = ""
        if name in ON_A_TICK:
            fits = growth <= MOST_GROWTH or values[-1] - values[-2] <= NOISE_MILLISECONDS
            target = f"at most {MOST_GROWTH:g}x{targets.judge(name, fits)}"
        print(name.ljust(32) + "".join(f"{value:12,.1f}" for value in values) + f"{growth:9.1f}x  {target}")
    return targets.exit_code()


def measure(folder: Path, shards: int, repeats: int) -> dict[str, float]:
    """Milliseconds of each step with so many shards of one record."""
    source = folder / "in.jsonl"
    source.write_text("".join(f'{{"text": "record {number}"}}\n' for number in range(shards)))
    settings = PipelineSettings(
        name="scale",
        source=SourceSettings(uri=str(source)),
        shards=ShardSettings(records=1),
        output=OutputSettings(root=str(folder / "out")),
        automation=True,
    )
    ledger = Ledger.open(f"sqlite:///{folder / 'ledger.db'}")
    (folder / "home").mkdir()
    found: dict[str, float] = {}
    with dg.DagsterInstance.local_temp(str(folder / "home")) as instance:
        pipeline = open_pipeline(settings, ledger, create_host(settings.executor.type).executor(settings))
        found["plan and register"], planned = timed(lambda: plan_source(pipeline))
        found["plan again, nothing new"], _ = timed(lambda: plan_source(pipeline))
        keys = planned.all_keys
        found["add partitions"], _ = timed(lambda: add_partitions(instance, "scale", keys))
        found["move all shards"], _ = timed(
            lambda: ledger.move("scale", keys, {State.PLANNED}, State.PREPARED)
        )
        ledger.move("scale", keys, {State.PREPARED}, State.READY)
        holder = Holder.current()

        def claim_and_release() -> None:
            claim = ledger.claim("scale", keys[shards // 2], holder)
            assert claim is not None
            ledger.release(claim)

        found["claim and release one shard"] = median(claim_and_release, repeats)
        found["status"] = median(lambda: read_status(settings, ledger), repeats)
        definitions = build_pipeline_definitions(settings)
        resources: dict[str, Any] = {executor_key(kind): create_host(kind) for kind in EXECUTOR_HOSTS}
        resources |= {LEDGER: ledger, NOTIFICATIONS: []}
        for build in (build_job_completion, build_merge_ready, build_new_input):
            sensor = build()
            own = dg.Definitions.merge(
                definitions,
                dg.Definitions(sensors=[sensor], resources=resources),
            )
            tick = tick_of(sensor, instance, resources, own.get_repository_def())
            found[f"tick {sensor.name}"] = median(tick, repeats)
        found["read all shards"], _ = timed(lambda: ledger.shards("scale"))
    ledger.dispose()
    return found


def tick_of(
    sensor: dg.SensorDefinition,
    instance: dg.DagsterInstance,
    resources: Mapping[str, Any],
    repository: dg.RepositoryDefinition,
) -> Callable[[], None]:
    """What lets the sensor tick once, with those of the resources that it asks for."""
    given = {name: resources[name] for name in sensor.required_resource_keys}

    def tick() -> None:
        with dg.build_sensor_context(
            instance=instance, resources=given, repository_def=repository
        ) as context:
            sensor.evaluate_tick(context)

    return tick


def timed(step: Callable[[], Result]) -> tuple[float, Result]:
    """Milliseconds of one call, and what it returned."""
    started = time.perf_counter()
    result = step()
    return (time.perf_counter() - started) * 1000, result


def median(step: Callable[[], object], repeats: int) -> float:
    """Median milliseconds over some calls, after one that does not count."""
    step()
    return statistics.median(timed(step)[0] for _ in range(repeats))


if __name__ == "__main__":
    raise SystemExit(main())
