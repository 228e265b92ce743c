"""Generations: what is planned once is never planned again, unless somebody says so."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batch_assets.errors import ConfigurationError, SourceError
from batch_assets.sharding.known import read_known
from batch_assets.sharding.plan_files import generations
from batch_assets.sharding.planner import plan_generation
from batch_assets.sources.column_types import arrow_type
from batch_assets.storage import open_storage
from batch_assets_tests.sharding.planning import plan, settings_of, write_lines


def lines(name: str, count: int) -> list[str]:
    return [f'{{"text": "{name} {number}"}}' for number in range(count)]


def test_nothing_new_is_no_change(tmp_path: Path) -> None:
    write_lines(tmp_path / "src/a.jsonl", lines("a", 3))
    plan(tmp_path / "src", tmp_path / "root")
    root = open_storage(str(tmp_path / "root"))
    result = plan_generation(settings_of(tmp_path / "src", tmp_path / "root"), root)
    assert not result.changes


def test_new_files_make_a_generation_of_their_own(tmp_path: Path) -> None:
    write_lines(tmp_path / "src/b.jsonl", lines("b", 3))
    plan(tmp_path / "src", tmp_path / "root")
    write_lines(tmp_path / "src/a.jsonl", ['{"text": "new", "extra": 1}'])
    write_lines(tmp_path / "src/empty.jsonl", [])
    second = plan(tmp_path / "src", tmp_path / "root")
    assert [shard.key for shard in second.shards] == ["g0002-00000"]
    assert second.texts() == ["new"]
    assert second.summary.columns == {"text": "string", "extra": "int64"}
    assert [file.path for file in second.summary.files] == ["a.jsonl", "empty.jsonl"]
    root = open_storage(str(tmp_path / "root"))
    assert generations(root) == [1, 2]
    assert read_known(root, str(tmp_path / "src")).records == 4


def test_a_raised_limit_goes_on_where_the_plan_ended(tmp_path: Path) -> None:
    write_lines(tmp_path / "src/a.jsonl", [*lines("a", 4), "", *lines("A", 4)])
    write_lines(tmp_path / "src/b.jsonl", lines("b", 4))
    texts: list[str] = []
    for limit in (3, 6, 6, 10, None):
        planned = plan(tmp_path / "src", tmp_path / "root", limit=limit)
        texts += planned.texts()
        assert limit is None or len(texts) == limit
    assert texts == [f"{name} {number}" for name in "aAb" for number in range(4)]


def test_touched_and_removed_files_are_named_and_wait_for_replace(tmp_path: Path) -> None:
    for name in "abcd":
        write_lines(tmp_path / f"src/{name}.jsonl", lines(name, 3))
    first = plan(tmp_path / "src", tmp_path / "root", {"records": 4})
    assert [shard.records for shard in first.shards] == [4, 4, 4]
    write_lines(tmp_path / "src/a.jsonl", lines("changed", 5))
    (tmp_path / "src/d.jsonl").unlink()
    second = plan(tmp_path / "src", tmp_path / "root", {"records": 4})
    assert (second.result.touched, second.result.removed, second.result.changes) == (
        ["a.jsonl"],
        ["d.jsonl"],
        False,
    )
    third = plan(tmp_path / "src", tmp_path / "root", {"records": 4}, replace=True)
    # The shards of a and of d go; what they held of b and c is planned again, without reading those.
    assert third.summary.superseded == ["g0001-00000", "g0001-00002"]
    assert third.texts() == [*(f"changed {n}" for n in range(5)), "b 0", "c 2"]
    known = read_known(open_storage(str(tmp_path / "root")), str(tmp_path / "src"))
    assert known.records == 5 + 3 + 3
    assert sorted(known.files) == ["a.jsonl", "b.jsonl", "c.jsonl"]
    fourth = plan(tmp_path / "src", tmp_path / "root", {"records": 4}, replace=True)
    assert (fourth.result.touched, fourth.result.removed, fourth.result.changes) == ([], [], False)


def test_a_touched_file_is_not_read(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "src/a.jsonl", lines("a", 3))
    planned = plan(tmp_path / "src", tmp_path / "root")
    write_lines(path, lines("b", 3))
    os.utime(path, ns=(1, 1))
    with pytest.raises(SourceError, match=r"a\.jsonl: touched since it was planned.*plan --replace"):
        planned.records()
    path.unlink()
    with pytest.raises(SourceError, match="is missing since it was planned"):
        planned.records()


@pytest.mark.parametrize(
    ("before", "value", "plan_type", "stored", "merged"),
    [
        ("1", '"word"', "string", "word", "JSON text"),
        ("1", "1.5", "float64", 1.5, "float64"),
        ("1", "99999999999999999999", "json", "99999999999999999999", "JSON text"),
        ("null", '{"a": 1}', "json", '{"a":1}', "JSON text"),
        ("1.5", "true", "bool", True, "JSON text"),
    ],
)
def test_new_files_may_hold_another_type(
    tmp_path: Path, before: str, value: str, plan_type: str, stored: Any, merged: str
) -> None:
    write_lines(tmp_path / "src/a.jsonl", [f'{{"text": "x", "n": {before}}}'])
    first = plan(tmp_path / "src", tmp_path / "root")
    write_lines(tmp_path / "src/b.jsonl", [f'{{"text": "x", "n": {value}}}'])
    second = plan(tmp_path / "src", tmp_path / "root")
    assert second.summary.columns["n"] == plan_type
    assert second.columns()["n"] == [stored]
    assert first.read(first.shards[0])[0].columns.schema.field("n").type == arrow_type(
        first.summary.columns["n"]
    )
    [note] = second.result.notes
    assert f"'n' is {first.summary.columns['n']} in the shards planned so far and {plan_type} in" in note
    assert f"makes {merged} of both" in note


def test_records_that_come_into_another_shard_keep_their_values(tmp_path: Path) -> None:
    a = write_lines(tmp_path / "src/a.jsonl", ['{"text": "a", "n": 1}'])
    write_lines(tmp_path / "src/b.jsonl", ['{"text": "b", "n": 2}'])
    plan(tmp_path / "src", tmp_path / "root")
    write_lines(a, ['{"text": "longer", "n": "word"}'])
    second = plan(tmp_path / "src", tmp_path / "root", replace=True)
    assert second.columns() == {"text": ["longer", "b"], "n": ['"word"', "2"]}


def test_a_column_that_is_asked_for_no_more_is_written_no_more(tmp_path: Path) -> None:
    write_lines(tmp_path / "src/a.jsonl", ['{"id": "a", "text": "x", "price": 1}'])
    plan(tmp_path / "src", tmp_path / "root")
    write_lines(tmp_path / "src/b.jsonl", ['{"id": "b", "text": "x", "price": 7.5}'])
    second = plan(tmp_path / "src", tmp_path / "root", columns=["id"])
    assert second.columns() == {"id": ["b"]}
    write_lines(tmp_path / "src/c.jsonl", ['{"id": "c", "text": "x", "price": 2}'])
    assert plan(tmp_path / "src", tmp_path / "root").columns() == {"id": ["c"], "text": ["x"], "price": [2]}


def test_values_that_fit_a_wider_column(tmp_path: Path) -> None:
    write_lines(tmp_path / "src/a.jsonl", ['{"text": "x", "f": 1.5, "j": [1]}'])
    plan(tmp_path / "src", tmp_path / "root")
    write_lines(tmp_path / "src/b.jsonl", ['{"text": "y", "f": 2, "j": "s"}', '{"text": "z"}'])
    second = plan(tmp_path / "src", tmp_path / "root")
    assert second.columns() == {"text": ["y", "z"], "f": [2.0, None], "j": ['"s"', None]}


def test_a_source_of_nothing(tmp_path: Path) -> None:
    write_lines(tmp_path / "src/a.jsonl", ["", " "])
    with pytest.raises(SourceError, match="hold no records"):
        plan(tmp_path / "src", tmp_path / "root")


def test_a_shard_smaller_than_the_executor_takes(tmp_path: Path) -> None:
    write_lines(tmp_path / "src/a.jsonl", lines("a", 3))
    with pytest.raises(ConfigurationError, match=r"shards\.records: 2 is under"):
        plan(tmp_path / "src", tmp_path / "root", {"records": 2}, min_records=100)


def test_too_many_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch_assets.sharding.cutting.MOST_SHARDS", 3)
    write_lines(tmp_path / "src/a.jsonl", lines("a", 5))
    with pytest.raises(ConfigurationError, match=r"raise shards\.records"):
        plan(tmp_path / "src", tmp_path / "root", {"records": 1})


def test_progress_is_told(tmp_path: Path) -> None:
    for name in "abc":
        write_lines(tmp_path / f"src/{name}.jsonl", lines(name, 3))
    told: list[tuple[int, int]] = []
    settings = settings_of(tmp_path / "src", tmp_path / "root")
    plan_generation(
        settings,
        open_storage(str(tmp_path / "root")),
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1][0] == told[-1][1]
    assert len(told) >= 3
    assert [done for done, _ in told] == sorted(done for done, _ in told)


MEASURE = """
import sys
from batch_assets.sharding.planner import plan_generation
from batch_assets.sources.column_types import arrow_type
from batch_assets.storage import open_storage
from batch_assets_tests.sharding.planning import settings_of
result = plan_generation(settings_of(sys.argv[1], sys.argv[2]), open_storage(sys.argv[2]))
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(result.summary.records, peak)
"""


def test_planning_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    block = b"".join(
        b'{"id": %d, "text": "%s", "score": 0.%d}\n' % (n, b"word " * (n % 90), n) for n in range(20_000)
    )
    with (tmp_path / "a.jsonl").open("wb") as file:
        for _ in range(20):
            file.write(block)
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "a.jsonl"), str(tmp_path / "root")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    records, kilobytes = map(int, done.stdout.split())
    assert records == 400_000
    assert kilobytes < 200_000
