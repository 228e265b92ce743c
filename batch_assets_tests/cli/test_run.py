"""What `batch-assets run` promises: rows in order, exit codes, the accounting line, nothing twice."""

import gzip
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from batch_assets_tests.command import (
    Machine,
    accounting_of,
    make_machine,
    published,
    some_records,
    write_records,
)
from batch_assets_tests.forking import CommandProcess
from batch_assets_tests.waiting import PATIENCE_SECONDS, wait_until


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return make_machine(tmp_path / "home")


def adhoc(tmp_path: Path, tiny_model: Path, *more: object) -> list[object]:
    return [
        "run", "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out", "--model", tiny_model,
        "--id-column", "id", "--dtype", "float32", *more,
    ]  # fmt: skip


def markers(root: Path) -> list[Path]:
    """The commit markers of the shards that are committed by now."""
    return list((root / "shards").glob("*/shard.json"))


def wait_for_commits(process: CommandProcess, root: Path, count: int) -> None:
    """Until so many shards are committed, or the run has ended."""
    process.wait_until(lambda: len(markers(root)) >= count, f"no {count} shards are committed")


def test_records_come_out_in_order_with_their_columns(
    machine: Machine, tmp_path: Path, tiny_model: Path
) -> None:
    write_records(tmp_path / "in.jsonl", some_records(250))
    result = machine.run(*adhoc(tmp_path, tiny_model, "--shard-records", 100))
    assert result.returncode == 0, result.stderr
    assert accounting_of(result) == (250, 250, 0, 0)
    rows = published(tmp_path / "out")
    assert rows["record_id"].to_list() == [f"record-{number}" for number in range(250)]
    assert rows["number"].to_list() == list(range(250))
    assert rows["source_row"].to_list() == list(range(250))
    assert np.allclose(np.linalg.norm(rows["embedding"].to_numpy(), axis=1), 1, atol=1e-4)
    assert len(list((tmp_path / "out" / "shards").iterdir())) == 3
    home_line = result.stderr.splitlines()[0]
    assert str(machine.home) in home_line and "ledger.db" in home_line


def test_bad_records_are_accounted_for_and_set_the_exit_code(
    machine: Machine, tmp_path: Path, tiny_model: Path
) -> None:
    good = some_records(8)
    write_records(
        tmp_path / "in.jsonl", [*good[:4], {"id": "empty", "text": "  "}, {"id": "none"}, *good[4:]]
    )
    result = machine.run(*adhoc(tmp_path, tiny_model))
    assert result.returncode == 3, result.stderr
    assert accounting_of(result) == (10, 8, 2, 0)
    assert machine.run(*adhoc(tmp_path, tiny_model, "--max-failed", 0.2)).returncode == 0
    version = (tmp_path / "out" / "merged" / "CURRENT").read_text().strip()
    failures = pl.read_parquet(tmp_path / "out" / "merged" / version / "failures.parquet")
    assert failures["record_id"].to_list() == ["empty", "none"]
    assert failures["source_row"].to_list() == [4, 5]
    assert set(failures["stage"]) == {"reject"}


def test_every_record_rejected_publishes_nothing(machine: Machine, tmp_path: Path, tiny_model: Path) -> None:
    write_records(tmp_path / "in.jsonl", [{"text": ""}, {"text": " "}])
    result = machine.run(*adhoc(tmp_path, tiny_model)[:7])
    assert result.returncode == 1
    assert accounting_of(result) == (2, 0, 2, 0)
    assert not (tmp_path / "out" / "merged" / "CURRENT").exists()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (["--input", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--dtype", "float12"], "float12"),
        (["--text-column", "missing"], "missing"),
        (["--model", "no/such-model"], "no/such-model"),
        (["--shard-records", "many"], "many"),
        (["--max-failed", "7"], "7"),
        (["--format", "xml"], "xml"),
        (["--executor", "abacus"], "abacus"),
        (["--columns", "id,nothing"], "nothing"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_and_nothing_is_written(
    machine: Machine, tmp_path: Path, tiny_model: Path, change: list[str], word: str
) -> None:
    write_records(tmp_path / "in.jsonl", some_records(5))
    result = machine.run(*adhoc(tmp_path, tiny_model, *change))
    assert result.returncode == 2, result.stderr
    assert word in result.stderr
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").rglob("*.*"))


def test_the_same_output_from_another_source_is_refused(
    machine: Machine, tmp_path: Path, tiny_model: Path
) -> None:
    write_records(tmp_path / "in.jsonl", some_records(5))
    write_records(tmp_path / "more.jsonl", some_records(5, first=5))
    assert machine.run(*adhoc(tmp_path, tiny_model)).returncode == 0
    other = adhoc(tmp_path, tiny_model, "--input", tmp_path / "more.jsonl")
    refused = machine.run(*other)
    assert refused.returncode == 2 and "more.jsonl" in refused.stderr
    added = machine.run(*other, "--add-source")
    assert added.returncode == 0, added.stderr
    assert published(tmp_path / "out")["number"].to_list() == list(range(10))


def test_killed_at_any_moment_it_goes_on(machine: Machine, tmp_path: Path, tiny_model: Path) -> None:
    """Killed at different moments, the same command at once: the same rows, finished shards not done again."""
    write_records(tmp_path / "in.jsonl", some_records(1500))
    calm = make_machine(tmp_path / "calm_home")
    command = adhoc(tmp_path, tiny_model, "--shard-records", 100)
    undisturbed = calm.run(*[tmp_path / "calm" if part == tmp_path / "out" else part for part in command])
    assert undisturbed.returncode == 0, undisturbed.stderr
    made: dict[Path, bytes] = {}
    for more in (2, 1, 3):
        process = machine.start(*command)
        wait_for_commits(process, tmp_path / "out", len(made) + more)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        for marker, content in made.items():
            assert marker.read_bytes() == content, f"{marker} was committed and is done again"
        made = {file: file.read_bytes() for file in markers(tmp_path / "out")}
    result = machine.run(*command)
    assert result.returncode == 0, result.stderr
    for marker, content in made.items():
        assert marker.read_bytes() == content
    ours, theirs = published(tmp_path / "out"), published(tmp_path / "calm")
    assert ours.drop("embedding").equals(theirs.drop("embedding"))
    cosines = (ours["embedding"].to_numpy() * theirs["embedding"].to_numpy()).sum(axis=1)
    assert cosines.min() > 0.99999
    assert accounting_of(machine.run("verify", tmp_path / "out")) == (1500, 1500, 0, 0)


def test_two_at_once_share_the_work_and_end_alike(machine: Machine, tmp_path: Path, tiny_model: Path) -> None:
    write_records(tmp_path / "in.jsonl", some_records(3000))
    command = adhoc(tmp_path, tiny_model, "--shard-records", 200)
    both = [machine.start(*command) for _ in range(2)]
    ended = [process.communicate(timeout=PATIENCE_SECONDS) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert ended[0][0].splitlines()[-1] == ended[1][0].splitlines()[-1]
    markers = [json.loads(file.read_text()) for file in (tmp_path / "out" / "shards").glob("*/shard.json")]
    assert len(markers) == 15
    assert {marker["attempt"] for marker in markers} == {1}, "a shard was computed twice"
    assert published(tmp_path / "out").height == 3000


def test_with_the_ledger_lost_it_goes_on_from_the_root(
    machine: Machine, tmp_path: Path, tiny_model: Path
) -> None:
    write_records(tmp_path / "in.jsonl", some_records(300))
    command = adhoc(tmp_path, tiny_model, "--shard-records", 100)
    assert machine.run(*command).returncode == 0
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("shard.json")}
    current = (tmp_path / "out" / "merged" / "CURRENT").read_text()
    elsewhere = make_machine(tmp_path / "another_home")
    result = elsewhere.run(*command)
    assert result.returncode == 0, result.stderr
    assert accounting_of(result) == (300, 300, 0, 0)
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("shard.json")} == before
    assert (tmp_path / "out" / "merged" / "CURRENT").read_text() == current


def test_another_prompt_makes_shards_stale(machine: Machine, tmp_path: Path, tiny_model: Path) -> None:
    write_records(tmp_path / "in.jsonl", some_records(50))
    assert machine.run(*adhoc(tmp_path, tiny_model)).returncode == 0
    first = published(tmp_path / "out")
    changed = machine.run(*adhoc(tmp_path, tiny_model, "--prompt", "query: "))
    assert changed.returncode == 0, changed.stderr
    assert "stale" in changed.stderr
    second = published(tmp_path / "out")
    assert second["record_id"].equals(first["record_id"])
    assert not np.allclose(second["embedding"].to_numpy(), first["embedding"].to_numpy())


def test_ctrl_c_gives_the_shards_back(machine: Machine, tmp_path: Path, tiny_model: Path) -> None:
    write_records(tmp_path / "in.jsonl", some_records(5000))
    command = adhoc(tmp_path, tiny_model, "--shard-records", 500)
    process = machine.start(*command)
    wait_for_commits(process, tmp_path / "out", 1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, stderr
    assert "goes on" in stderr
    status = json.loads(machine.run("status", tmp_path / "out", "--json").stdout)
    assert status["shards"].get("running", 0) == 0
    assert status["records"]["planned"] == 5000
    assert machine.run(*command).returncode == 0


def test_a_models_own_code_does_not_run_unless_allowed(
    machine: Machine, tmp_path: Path, tiny_model: Path
) -> None:
    write_records(tmp_path / "in.jsonl", some_records(5))
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (model / "config.json").write_text(json.dumps(config))
    (model / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    result = machine.run(*adhoc(tmp_path, model))
    assert result.returncode == 2, result.stderr
    assert "--trust-remote-code" in result.stderr
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("there", ["in.jsonl", "home/batch_assets/ledger.db", "out/pipeline.json"])
def test_ended_before_it_has_begun_it_says_nothing_wrong(
    machine: Machine, tmp_path: Path, tiny_model: Path, there: str
) -> None:
    """At once, when it has a ledger, when it has begun to plan."""
    write_records(tmp_path / "in.jsonl", some_records(5))
    process = machine.start(*adhoc(tmp_path, tiny_model))
    wait_until((tmp_path / there).exists, there)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode in (130, -signal.SIGTERM)  # the latter before our first line runs
    assert "Traceback" not in stderr


def test_a_file_that_cannot_be_read_is_left_out_and_told(
    machine: Machine, tmp_path: Path, tiny_model: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(b'{"text": " "}\n{"text": "x"}\n'))
    (folder / "c.jsonl.gz").write_bytes((folder / "a.jsonl.gz").read_bytes()[:-9])
    run = [
        "run",
        "--input",
        folder,
        "--output",
        tmp_path / "out",
        "--model",
        tiny_model,
        "--dtype",
        "float32",
    ]
    result = machine.run(*run, "--max-failed", 0.5)
    assert result.returncode == 3, result.stderr
    assert "is not whole: 1 files cannot be read" in result.stderr and "c.jsonl.gz" in result.stderr
    assert accounting_of(result) == (4, 2, 2, 0)
    result = machine.run("status", tmp_path / "out")
    assert "c.jsonl.gz" in "".join(result.stdout.split()), result.stdout  # the table wraps its lines
    (folder / "c.jsonl.gz").unlink()
    result = machine.run(*run)
    assert result.returncode == 3, result.stderr
    assert "all for empty_text, such as a.jsonl.gz, row 0: " in result.stderr
    assert machine.run(*run, "--max-failed", 0.5).returncode == 0
