"""Two deployments, each with a ledger of its own, on one output root: a shared folder, two machines."""

import os
import shutil
import time
from pathlib import Path

from batch_assets.control.collection import collect_shards
from batch_assets.control.merging import merge_shards, publish_merge
from batch_assets.control.pipeline import Pipeline, open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.control.preparation import prepare_shards, queue_shards
from batch_assets.control.shard_result import Result
from batch_assets.ledger.states import State
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


def test_by_turns_nothing_is_computed_twice(tmp_path: Path) -> None:
    write_input(tmp_path, 4)
    settings, host = make_settings(tmp_path), FakeHost()
    ledgers = [open_ledger(tmp_path, name) for name in ("one", "two")]
    for _ in range(3):
        for ledger in ledgers:
            run(settings, ledger, host)
    assert len(host.computed) == 4
    assert_published(tmp_path / "out", 4 * PER_SHARD)


def test_interleaved_step_by_step_neither_keeps_the_other_from_finishing(tmp_path: Path) -> None:
    """Both open the pipeline for each step, as assets do; each time the other has been there meanwhile."""
    write_input(tmp_path, 2)
    settings, hosts = make_settings(tmp_path), [FakeHost(), FakeHost()]
    ledgers = [open_ledger(tmp_path, name) for name in ("one", "two")]

    def opened() -> list[Pipeline]:
        return [
            open_pipeline(settings, ledger, host.executor(settings))
            for ledger, host in zip(ledgers, hosts, strict=True)
        ]

    for pipeline in opened():
        keys = plan_source(pipeline).all_keys
    for pipeline in opened():
        list(prepare_shards(pipeline, keys))
    for pipeline in opened():
        queue_shards(pipeline, keys)
    for pipeline in opened():
        results = list(collect_shards(pipeline, keys))
        assert {result.result for result in results} <= {Result.COLLECTED, Result.VERIFIED}, results
    assert hosts[0].computed == keys and hosts[1].computed == []
    assert [len(ledger.shards("texts", states=[State.COLLECTED])) for ledger in ledgers] == [2, 2]


def test_a_root_made_anew_by_another_is_learnt_anew(tmp_path: Path) -> None:
    write_input(tmp_path, 2)
    settings, host = make_settings(tmp_path), FakeHost()
    mine = open_ledger(tmp_path, "one")
    run(settings, mine, host)
    shutil.rmtree(tmp_path / "out")
    write_input(tmp_path, 5)
    for name in ("two", "three", "four"):
        run(settings, open_ledger(tmp_path, name), host)
    run(settings, mine, host)
    assert len(mine.shards("texts", states=[State.COLLECTED])) == 5
    assert_published(tmp_path / "out", 5 * PER_SHARD)
    assert len(host.computed) == 2 + 5


def test_a_shard_that_vanished_from_the_root_is_embedded_again(tmp_path: Path) -> None:
    write_input(tmp_path, 3)
    settings, host = make_settings(tmp_path), FakeHost()
    mine = open_ledger(tmp_path, "one")
    run(settings, mine, host)
    run(settings, open_ledger(tmp_path, "two"), host)
    shutil.rmtree(tmp_path / "out" / "shards" / "g0001-00001")
    run(settings, mine, host)
    assert host.computed[3:] == ["g0001-00001"]
    assert_published(tmp_path / "out", 3 * PER_SHARD)
