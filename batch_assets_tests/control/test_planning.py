"""Planning rounds where the source or the plan changes."""

import dataclasses
import logging
from pathlib import Path

import pytest

from batch_assets.control.collection import collect_shards
from batch_assets.control.housekeeping import read_source_news
from batch_assets.control.merging import merge_shards
from batch_assets.control.pipeline import open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.control.shard_result import Result
from batch_assets.merge.verification import verify
from batch_assets.sharding.plan_files import read_plan, write_plan
from batch_assets_tests.command import published, some_records, write_records
from batch_assets_tests.control.builders import PER_SHARD, embed_all, make_settings, open_ledger, run
from batch_assets_tests.fakes import FakeHost


def test_a_file_that_comes_back_as_it_was_is_no_news_once_planned(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_records(tmp_path / "in" / f"{name}.jsonl", some_records(PER_SHARD))
    settings = make_settings(tmp_path, source={"uri": f"{tmp_path}/in"})
    ledger, host = open_ledger(tmp_path), FakeHost()
    embed_all(settings, ledger, host)
    (tmp_path / "in" / "b.jsonl").rename(tmp_path / "kept")
    assert read_source_news(settings, ledger, None).removed == ["b.jsonl"]
    (tmp_path / "kept").rename(tmp_path / "in" / "b.jsonl")
    assert read_source_news(settings, ledger, None).new == ["b.jsonl"]
    plan_source(open_pipeline(settings, ledger, host.executor(settings)))
    news = read_source_news(settings, ledger, None)
    assert (news.new, news.removed, news.touched) == ([], [], [])


def test_a_removed_file_stays_removed_when_its_shards_are_replaced(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_records(tmp_path / "in" / f"{name}.jsonl", some_records(PER_SHARD))
    settings = make_settings(tmp_path, source={"uri": f"{tmp_path}/in"})
    ledger, host = open_ledger(tmp_path), FakeHost()
    embed_all(settings, ledger, host)
    (tmp_path / "in" / "b.jsonl").unlink()
    for replace in (True, False):
        pipeline = open_pipeline(settings, ledger, host.executor(settings))
        plan_source(pipeline, replace=replace)
        assert {file.path: file.state for file in ledger.files("texts")}["b.jsonl"] == "removed"
    row = ledger.pipeline("texts")
    assert row is not None and row.generation == 2
    [result] = collect_shards(pipeline, ["g0001-00001"])
    assert result.result is Result.NOT_READY
    assert "was replaced by a later plan" in result.message


def test_a_merge_names_what_it_leaves_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_records(tmp_path / "in.jsonl", some_records(3 * PER_SHARD))
    settings, host = make_settings(tmp_path, merge_when="any"), FakeHost()
    ledger = open_ledger(tmp_path)
    embed_all(settings, ledger, host)
    pipeline = open_pipeline(settings, ledger, host.executor(settings))
    ledger.recompute("texts", ["g0001-00001"])
    with caplog.at_level(logging.WARNING):
        assert len(merge_shards(pipeline).manifest.parts) == 2
    [told] = [text for text in caplog.messages if "left out of the merge" in text]
    assert f"1 shards with {PER_SHARD} records" in told and "g0001-00001 (ready)" in told


def test_nothing_is_lost_behind_generation_9999(tmp_path: Path) -> None:
    """New input of rounds 9,999, 10,000 and 10,001 is planned once, embedded, and published in its order."""
    settings, ledger, host = (
        make_settings(tmp_path, source={"uri": f"{tmp_path}/in"}),
        open_ledger(tmp_path),
        FakeHost(),
    )
    records = some_records(4 * PER_SHARD)
    for number in range(4):
        write_records(tmp_path / "in" / f"{number}.jsonl", records[number * PER_SHARD :][:PER_SHARD])
        pipeline = run(settings, ledger, host)
        if number == 0:
            summary, _ = read_plan(pipeline.storage, 1)
            write_plan(pipeline.storage, dataclasses.replace(summary, generation=9_998, files=[]), [])
    keys = ["g0001-00000", "g9999-00000", "g10000-00000", "g10001-00000"]
    assert [row.key for row in ledger.shards("texts")] == keys
    assert published(tmp_path / "out")["text"].to_list() == [record["text"] for record in records]
    assert plan_source(pipeline).new_keys == []

    other = open_ledger(tmp_path, "other")
    assert plan_source(open_pipeline(settings, other, host.executor(settings))).all_keys == keys
    assert not verify(f"{tmp_path}/out").problems
