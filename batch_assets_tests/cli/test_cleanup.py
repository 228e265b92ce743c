"""`batch-assets cleanup`: what it prints, and its exit codes."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest

from batch_assets.cli.app import run_command
from batch_assets.embeddings.schema import FAILURES_SCHEMA
from batch_assets.ledger.ledger import Ledger
from batch_assets_tests.control.builders import make_settings, run, write_input
from batch_assets_tests.fakes import FakeHost

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BATCH_ASSETS_LEDGER_URL", f"sqlite:///{tmp_path}/ledger.db")
    monkeypatch.setattr("batch_assets.cli.cleanup.create_host", lambda kind: FakeHost())

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["batch-assets", "cleanup", *map(str, arguments)])
        capfd.readouterr()
        code, told = run_command(), capfd.readouterr()
        return code, told.out, told.err

    return call


def test_it_shows_and_then_removes(tmp_path: Path, command: Command) -> None:
    write_input(tmp_path, 1)
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    settings = make_settings(tmp_path, retention={"superseded": "0m"})
    run(settings, ledger, FakeHost())
    left = tmp_path / "out/shards/g0001-00000/failures-1-1.parquet"  # of a run that died
    pq.write_table(FAILURES_SCHEMA.empty_table(), left)
    size = left.stat().st_size
    os.utime(left, (0, 0))
    code, out, _ = command(tmp_path / "out", "--dry-run", "--json")
    told = orjson.loads(out)
    assert (code, told["pipeline"], told["removed"], told["files"], told["bytes"]) == (
        0,
        "texts",
        False,
        1,
        size,
    )
    assert told["kinds"]["superseded"]["examples"] == [str(left)]
    code, out, _ = command("texts", "--dry-run")
    assert (code, out.splitlines()[-1]) == (0, "texts: 1 files, 0.0 MB would be removed")
    assert left.exists()
    code, out, _ = command("texts")
    assert (code, out.splitlines()[-1]) == (0, "texts: 1 files, 0.0 MB removed")
    assert not left.exists()
    assert orjson.loads(command("texts", "--json")[1])["files"] == 0


def test_without_retention_and_with_another_ledger_it_says_why_not(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_input(tmp_path, 1)
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    run(make_settings(tmp_path), ledger, FakeHost())
    code, _, errors = command("texts")
    assert (code, "keeps everything for ever; set retention" in errors) == (2, True)
    assert command("textes")[0] == 2
    other = {"output": {"root": f"{tmp_path}/other"}, "retention": {"merged": "1h"}}
    run(make_settings(tmp_path, **other), Ledger.open(f"sqlite:///{tmp_path}/second.db"), FakeHost())
    code, _, errors = command(tmp_path / "other")
    assert (code, "this ledger does not know" in errors) == (1, True)
