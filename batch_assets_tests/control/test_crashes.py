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
from batch_assets_tests.control.dying import DIED, die_at
from batch_assets_tests.fakes import FakeHost

SHARDS = 4

# The point that the child dies at, and which time it comes there.
POINTS = [
    ("pipeline-attached", 1),
    ("root-taken", 1),
    ("shards-cut", 1),
    ("plan-written", 1),
    ("shards-added", 1),
    ("input-read", 2),
    ("input-manifest-written", 2),
    ("shard-claimed", 2),
    ("rows-stored", 2),
    ("shard-files-written", 2),
    ("commit-begun", 2),
    ("marker-committed", 2),
    ("shard-collected", 2),
    ("version-started", 1),
    ("part-copied", 2),
    ("parts-written", 1),
    ("manifest-written", 1),
    ("merge-checked", 1),
    ("version-published", 1),
    ("merge-noted", 1),
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


@pytest.mark.parametrize(("point", "count"), POINTS)
@pytest.mark.parametrize("ledger_is_lost", [False, True], ids=["", "ledger-lost"])
def test_dead_at_any_point_it_goes_on(tmp_path: Path, point: str, count: int, ledger_is_lost: bool) -> None:
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
