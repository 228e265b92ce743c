"""A process that dies at any step of a run: whoever comes after loses nothing and does nothing twice.

Each test forks a child that really dies (`os._exit`, no cleanup, as by kill -9) at one
point, then goes on in this process.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_assets.merge.verification import verify
from batch_assets_tests.control.builders import (
    PER_SHARD,
    assert_published,
    make_settings,
    open_ledger,
    run,
    write_input,
)
from batch_assets_tests.control.dying import DIED, KEPT, LOST, Death, die_at, named
from batch_assets_tests.fakes import FakeHost

SHARDS = 4

# With another ledger only what is under the root counts: a step in the ledger alone leaves what the one before it left.
DEATHS = [
    ("pipeline-attached", 1, KEPT),
    ("root-taken", 1, KEPT),
    ("root-taken", 1, LOST),
    ("shards-cut", 1, KEPT),
    ("plan-written", 1, KEPT),
    ("plan-written", 1, LOST),
    ("shards-added", 1, KEPT),
    ("input-manifest-written", 2, KEPT),
    ("shard-claimed", 2, KEPT),
    ("rows-stored", 2, KEPT),
    ("shard-files-written", 2, LOST),
    ("commit-begun", 2, KEPT),
    ("marker-committed", 2, KEPT),
    ("marker-committed", 2, LOST),
    ("shard-collected", 2, KEPT),
    ("version-started", 1, KEPT),
    ("part-copied", 2, KEPT),
    ("parts-written", 1, KEPT),
    ("manifest-written", 1, KEPT),
    ("version-published", 1, LOST),
    ("merge-noted", 1, KEPT),
]


def in_dying_child(work: Callable[[], Any], point: str, count: int) -> None:
    """Fork, do `work`, die at `point` when it is reached for the `count`th time."""
    child = os.fork()
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == DIED, (
            f"the child did not come to {point}"
        )
        return
    try:
        die_at(point, count)
        work()
    finally:
        os._exit(1)


def committed(root: Path) -> dict[str, bytes]:
    return {file.parent.name: file.read_bytes() for file in (root / "shards").glob("*/shard.json")}


@pytest.mark.parametrize("death", DEATHS, ids=named)
def test_dead_at_any_point_it_goes_on(tmp_path: Path, death: Death) -> None:
    point, count, ledger_is_lost = death
    write_input(tmp_path, SHARDS)
    settings = make_settings(tmp_path)
    in_dying_child(lambda: run(settings, open_ledger(tmp_path), FakeHost()), point, count)
    before = committed(tmp_path / "out")
    after = FakeHost()
    run(settings, open_ledger(tmp_path, "another" if ledger_is_lost else "ledger"), after)
    assert_published(tmp_path / "out", SHARDS * PER_SHARD)
    assert len(after.computed) == SHARDS - len(before), "a committed shard was computed again"
    now = committed(tmp_path / "out")
    assert {key: now[key] for key in before} == before
    report = verify(str(tmp_path / "out"))
    assert report.ok, report.problems
    assert report.accounting.planned == report.accounting.embedded == SHARDS * PER_SHARD
