"""The plan's files: created once, whole, and agreed on by everybody."""

import dataclasses
import threading
from pathlib import Path

import pytest

from batch_assets import paths
from batch_assets.errors import StorageError
from batch_assets.sharding.plan import PlanSummary, Shard, group_consecutive
from batch_assets.sharding.plan_files import (
    generations,
    read_plan,
    read_shards,
    read_summary,
    write_plan,
)
from batch_assets.sources.base import Segment, SourceFile
from batch_assets.storage import open_storage


def make(generation: int = 1, note: str = "") -> tuple[PlanSummary, list[Shard]]:
    segments = [
        Segment("a b%.jsonl", "v1", 0, 5, 0, 100, 4),
        Segment("ü.jsonl.gz", "v2", 3, 9, 7, 60, 6, "abc"),
    ]
    shards = [
        Shard(paths.shard_key(generation, 0), tuple(segments)),
        Shard(paths.shard_key(generation, 1), (Segment("a b%.jsonl", "v1", 5, 6, 100, 120, 1),)),
    ]
    files = [
        SourceFile("a b%.jsonl", 120, "v1", 5, 6, 120),
        SourceFile("empty.jsonl", 0, "v0", 0),
        SourceFile("ü.jsonl.gz", 999, "v2", 9, 9, 60, False),
    ]
    summary = PlanSummary(
        generation, "s3://b/src", "jsonl", {"text": "string", "user_embedding": "json"}, 2, 11, 173,
        files, "2026-01-01T00:00:00+00:00",
        "s3://b/src", 1000, {"user_embedding": "embedding"}, [note], ["g0000-00001"],
    )  # fmt: skip
    return summary, shards


def test_what_is_written_is_read(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    summary, shards = make()
    assert write_plan(storage, summary, shards)
    assert read_plan(storage, 1) == (summary, shards)
    assert read_summary(storage, 1) == dataclasses.replace(summary, files=())
    assert [(c.stored, c.source) for c in summary.source_columns] == [
        ("text", "text"),
        ("user_embedding", "embedding"),
    ]
    assert read_shards(storage, 1, ["g0001-00001", "g0009-00000"]) == [shards[1]]
    assert generations(storage) == [1]


def test_the_second_planner_reads_what_the_first_has_written(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    plans = [make(note=str(number)) for number in range(6)]
    gate = threading.Barrier(len(plans))
    won: list[str] = []

    def run(summary: PlanSummary, shards: list[Shard]) -> None:
        gate.wait()
        if write_plan(storage, summary, shards):
            won.extend(summary.left_out)
        assert read_summary(storage, 1).left_out == read_plan(storage, 1)[0].left_out

    threads = [threading.Thread(target=run, args=plan) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == read_summary(storage, 1).left_out


def test_a_crash_between_the_two_files_is_mended(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    summary, shards = make(note="first")
    write_plan(storage, summary, shards)
    storage.delete([paths.plan_summary(1)])
    assert generations(storage) == [1]
    assert not write_plan(storage, *make(note="second"))
    assert read_summary(storage, 1).left_out == ["first"]
    storage.delete([paths.plan_summary(1)])
    assert read_summary(storage, 1).left_out == ["first"]


def test_damage_and_absence_are_told(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    assert generations(storage) == []
    with pytest.raises(FileNotFoundError):
        read_summary(storage, 1)
    storage.write(paths.plan(1), b"rubbish")
    with pytest.raises(StorageError, match="is not a plan"):
        read_plan(storage, 1)


@pytest.mark.parametrize(
    ("wanted", "groups"),
    [
        ("abcdefg", ["abc", "def", "g"]),
        ("acdg", ["a", "cd", "g"]),
        ("", []),
        ("x", []),
        ("gfedcba", ["abc", "def", "g"]),
    ],
)
def test_groups_are_neighbours(wanted: str, groups: list[str]) -> None:
    assert group_consecutive("abcdefg", wanted, 3) == [list(group) for group in groups]


def test_generations_go_on_behind_9999(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    for generation in (9_998, 9_999, 10_000, 10_001, 123_456):
        assert write_plan(storage, *make(generation))
    for name in ("g1", "g00001", "g09998", "known-0123abcd"):
        (tmp_path / "plan" / f"{name}.parquet").write_text("mine")
    (tmp_path / "plan" / "g0001.parquet.bak").write_text("mine")
    assert generations(storage) == [9_998, 9_999, 10_000, 10_001, 123_456]
    assert read_plan(storage, 10_000) == make(10_000)
