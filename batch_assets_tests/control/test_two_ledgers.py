"""Two deployments, each with a ledger of its own, on one output root: a shared folder, two machines."""

import os
import time
from pathlib import Path

import pytest

from batch_assets.control.merging import merge_shards, publish_merge
from batch_assets.control.pipeline import open_pipeline
from batch_assets.merge.publishing import current
from batch_assets.merge.verification import verify
from batch_assets_tests.control.builders import (
    PER_SHARD,
    assert_published,
    embed_all,
    make_settings,
    open_ledger,
    run,
    write_input,
)
from batch_assets_tests.fakes import FakeHost


def test_both_at_once_end_with_one_whole_dataset(tmp_path: Path) -> None:
    write_input(tmp_path, 8)
    settings = make_settings(tmp_path)
    children: list[int] = []
    for name in ("one", "two"):
        child = os.fork()
        if not child:
            try:
                run(settings, open_ledger(tmp_path, name), FakeHost(before=lambda shard: time.sleep(0.02)))
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert_published(tmp_path / "out", 8 * PER_SHARD)
    assert verify(str(tmp_path / "out")).problems == []


def test_the_same_content_published_by_another_meanwhile_is_no_failure(tmp_path: Path) -> None:
    write_input(tmp_path, 2)
    settings, host = make_settings(tmp_path), FakeHost()
    embed_all(settings, open_ledger(tmp_path, "one"), host)
    slow = open_pipeline(settings, open_ledger(tmp_path, "one"), host.executor(settings))
    merged = merge_shards(slow)
    (tmp_path / "out" / "merged" / merged.manifest.version / "manifest.json").rename(tmp_path / "kept")
    run(settings, open_ledger(tmp_path, "two"), host)
    (tmp_path / "kept").rename(tmp_path / "out" / "merged" / merged.manifest.version / "manifest.json")
    publish_merge(slow, merged)
    assert current(slow.storage) != merged.manifest.version
    assert_published(tmp_path / "out", 2 * PER_SHARD)


@pytest.mark.parametrize("rounds", [3])
def test_by_turns_nothing_is_computed_twice(tmp_path: Path, rounds: int) -> None:
    write_input(tmp_path, 4)
    settings, host = make_settings(tmp_path), FakeHost()
    ledgers = [open_ledger(tmp_path, name) for name in ("one", "two")]
    for _ in range(rounds):
        for ledger in ledgers:
            run(settings, ledger, host)
    assert len(host.computed) == 4
    assert_published(tmp_path / "out", 4 * PER_SHARD)
