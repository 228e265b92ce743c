"""Processes that die at a crash point (`batch_assets/crash_points.py`) by `os._exit`: no cleanup, as by kill -9.

They are forked off a clean server process: the object store's threads live in this one, and do
not survive a fork.
"""

import itertools
import os
import time
from collections.abc import Mapping
from pathlib import Path

from batch_assets import crash_points
from batch_assets.control.collection import collect_shards
from batch_assets.control.loop import take_turn
from batch_assets.control.pipeline import open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.control.preparation import prepare_shards, queue_shards
from batch_assets.executors.registry import create_host
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets_tests.forking import start_process
from batch_assets_tests.waiting import PATIENCE_SECONDS

DIED, CAME_TO_THE_END = 77, 78
KEPT, LOST = False, True

Death = tuple[str, int, bool]
"""The point that a process dies at, which time it comes there, and whether its ledger is lost with it."""


def named(death: Death) -> str:
    """The name of a test of this death."""
    point, count, ledger_is_lost = death
    return f"{point}-{count}{'-ledger-lost' if ledger_is_lost else ''}"


def run_and_die(
    settings: PipelineSettings, folder: Path, environment: Mapping[str, str], point: str, count: int
) -> int:
    """The exit code of a process that runs the pipeline and dies when it comes to `point` for the `count`th time."""
    child = start_process(_run, (settings, folder, dict(environment), point, count))
    child.join(PATIENCE_SECONDS)
    assert child.exitcode is not None, "it hangs"
    return child.exitcode


def _run(
    settings: PipelineSettings, folder: Path, environment: dict[str, str], point: str, count: int
) -> None:
    os.environ.update(environment)
    die_at(point, count)
    ledger = Ledger.open(f"sqlite:///{folder}/ledger.db")
    pipeline = open_pipeline(settings, ledger, create_host(settings.executor.type).executor(settings))
    keys = plan_source(pipeline).all_keys
    list(prepare_shards(pipeline, keys))
    queue_shards(pipeline, keys)
    while any(row.state is not State.COLLECTED for row in ledger.shards(settings.name)):
        take_turn([pipeline])
        ready = [row.key for row in ledger.finished(settings.name, 100)]
        list(collect_shards(pipeline, ready))
        time.sleep(0.002)
    os._exit(CAME_TO_THE_END)


def die_at(point: str, count: int) -> None:
    """Have this process die when it comes to `point` for the `count`th time."""
    times = itertools.count(1)

    def die(reached: str) -> None:
        if reached == point and next(times) == count:
            os._exit(DIED)

    crash_points.watchers.append(die)
