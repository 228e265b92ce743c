"""A process that dies at any step of a run: whoever comes after loses nothing and does nothing twice.

Each test forks a child that really dies (`os._exit`, no cleanup, as by kill -9) right behind
one step, then goes on in this process.
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
from batch_assets_tests.control.dying import DIED, dies_behind
from batch_assets_tests.fakes import FakeHost

SHARDS = 4

# What the child comes to do last: a function's module and name, and which call of it.
STEPS = [
    ("batch_assets.ledger.planning:Planning.attach", 1),
    ("batch_assets.sharding.plan_files:_table_bytes", 1),
    ("batch_assets.control.planning:write_plan", 1),
    ("batch_assets.ledger.planning:Planning.add_shards", 1),
    ("batch_assets.control.preparation:prepare_input", 2),
    ("batch_assets.control.preparation:write_input_manifest", 2),
    ("batch_assets.ledger.claims:Claims.claim", 2),
    ("batch_assets.embeddings.shard_writer:ShardWriter.write", 2),
    ("batch_assets.embeddings.shard_writer:ShardWriter._store", 2),
    ("batch_assets.embeddings.shard_writer:ShardWriter.close", 2),
    ("batch_assets.ledger.claims:Claims.begin_commit", 2),
    ("batch_assets.control.committing:commit_marker", 2),
    ("batch_assets.ledger.claims:Claims.finish", 2),
    ("batch_assets.merge.parquet:start_version", 1),
    ("batch_assets.merge.writing:copy_file", 2),
    ("batch_assets.merge.parquet:write_whole", 1),
    ("batch_assets.merge.parquet:write_manifest", 1),
    ("batch_assets.control.merging:check_vectors", 1),
    ("batch_assets.control.merging:publish", 1),
    ("batch_assets.ledger.planning:Planning.set_merged", 1),
]


def in_dying_child(work: Callable[[], Any], step: str, call: int) -> None:
    """Fork, do `work`, die behind the `call`th call of `step`."""
    child = os.fork()
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == DIED, f"the child did not come to {step}"
        return
    try:
        dies_behind(step, call)
        work()
    finally:
        os._exit(1)


def committed(root: Path) -> dict[str, bytes]:
    return {file.parent.name: file.read_bytes() for file in (root / "shards").glob("*/shard.json")}


@pytest.mark.parametrize(("step", "call"), STEPS)
@pytest.mark.parametrize("ledger_is_lost", [False, True], ids=["", "ledger-lost"])
def test_dead_behind_any_step_it_goes_on(tmp_path: Path, step: str, call: int, ledger_is_lost: bool) -> None:
    write_input(tmp_path, SHARDS)
    settings = make_settings(tmp_path)
    in_dying_child(lambda: run(settings, open_ledger(tmp_path), FakeHost()), step, call)
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
