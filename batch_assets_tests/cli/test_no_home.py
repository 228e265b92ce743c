"""The command where the user has no folder of its own, or none that can be written: as in a container."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from batch_assets.errors import ConfigurationError
from batch_assets.home import dagster_home, expand_user
from batch_assets.storage import normalize_uri
from batch_assets_tests.builders import make_tiny_model
from batch_assets_tests.command import accounting_of, make_machine, some_records, write_records
from batch_assets_tests.module_imports import REPOSITORY

NOBODY = """
import pwd

def unknown(uid):
    raise KeyError(uid)

pwd.getpwuid = unknown
from batch_assets.cli import main
main()
"""
NOWHERE = "/proc/nowhere"
"""Where not even root can make a folder."""


def run_as_nobody(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-c", NOBODY, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_folder_of_ones_own_one_is_asked_for_in_a_sentence(tmp_path: Path) -> None:
    for verb in ("run", "status"):
        refused = run_as_nobody(tmp_path, verb, "texts")
        assert refused.returncode == 2
        assert "Traceback" not in refused.stderr
        assert "HOME is not set; set HOME or, for what this deployment keeps, DAGSTER_HOME" in refused.stderr
    assert run_as_nobody(tmp_path, "--help").returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("home", [None, ""])
def test_no_folder_is_made_up_where_a_tilde_means_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str | None
) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setenv("DAGSTER_HOME", "~/home")
    if home is None:
        monkeypatch.delenv("HOME", raising=False)
    else:
        monkeypatch.setenv("HOME", home)
    for use in (dagster_home, lambda: normalize_uri("~/out"), lambda: expand_user("~")):
        with pytest.raises(ConfigurationError, match="has no folder of its own"):
            use()
    assert normalize_uri("~somebody/out") == f"{tmp_path}/~somebody/out"  # a file's name may begin so


def test_who_only_looks_needs_no_home_to_write(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "model")
    source = write_records(tmp_path / "in.jsonl", some_records(5))
    root = str(tmp_path / "out")
    flags = ["--input", source, "--output", root, "--model", tmp_path / "model", "--id-column", "id"]
    assert make_machine(tmp_path / "home").run("run", *flags).returncode == 0
    elsewhere = make_machine(tmp_path / "other", DAGSTER_HOME=NOWHERE)
    found = elsewhere.run("search", root, "the quick brown fox")
    assert found.returncode == 0, found.stderr
    assert "record-" in found.stdout
    verified = elsewhere.run("verify", root)
    assert (verified.returncode, accounting_of(verified)) == (0, (5, 5, 0, 0)), verified.stderr
    status = elsewhere.run("status", root)
    assert status.returncode == 0 and "published" in status.stdout, status.stderr
    refused = elsewhere.run("stop", root)
    assert refused.returncode == 2 and NOWHERE in refused.stderr
