"""Processes that die behind a chosen step, by `os._exit`: no cleanup, as by kill -9.

They are forked off a clean server process: the object store's threads live in this one, and do
not survive a fork.
"""

import importlib
import itertools
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


def run_and_die(
    settings: PipelineSettings, folder: Path, environment: Mapping[str, str], step: str, call: int
) -> int:
    """Run the pipeline in a process of its own that dies behind the `call`th call of `step`; its exit code."""
    child = start_process(_run, (settings, folder, dict(environment), step, call))
    child.join(PATIENCE_SECONDS)
    assert child.exitcode is not None, "it hangs"
    return child.exitcode


def _run(settings: PipelineSettings, folder: Path, environment: dict[str, str], step: str, call: int) -> None:
    os.environ.update(environment)
    dies_behind(step, call)
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


def dies_behind(step: str, call: int) -> None:
    """Have this process die when the `call`th call of `step` (module:name) has returned."""
    module, _, name = step.partition(":")
    *owners, last = name.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    function, numbers = getattr(owner, last), itertools.count(1)

    def dies(*arguments: Any, **named: Any) -> Any:
        number = next(numbers)
        result = function(*arguments, **named)
        if number == call:
            os._exit(DIED)
        return result

    setattr(owner, last, dies)
