"""Locks on files: one holder at a time, nothing left behind, and a sentence where the file system has none."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from batch_assets.errors import ConfigurationError, StorageError
from batch_assets.ledger.ledger import Ledger
from batch_assets.orchestration.instance import open_instance
from batch_assets.storage.local import LocalStorage
from batch_assets.storage.locks import locked
from batch_assets_tests.waiting import PATIENCE_SECONDS

KILLED = """
import os, pathlib, signal, sys
from batch_assets.storage.locks import locked

with locked(pathlib.Path(sys.argv[1]), ""):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_many_who_replace_a_file_lose_no_change_and_leave_nothing_behind(tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path))
    storage.write("number", b"0")
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "number")], check=False)
    assert ".number.lock" in os.listdir(tmp_path), "the killed process has left nothing"

    def add(_: int) -> None:
        while True:
            data, version = storage.read_versioned("number") or (b"", "")
            if storage.replace("number", b"%d" % (int(data) + 1), version):
                return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40), timeout=PATIENCE_SECONDS))
    assert storage.read("number") == b"40"
    assert os.listdir(tmp_path) == ["number"]


@pytest.mark.parametrize("content", ["theirs", ""])
def test_a_file_of_somebody_else_that_has_the_locks_name_stays(tmp_path: Path, content: str) -> None:
    (tmp_path / ".a.lock").write_text(content)
    (tmp_path / ".b.lock").symlink_to(tmp_path / "nothing")
    with locked(tmp_path / "a", ""):
        pass
    with pytest.raises(OSError, match="symbolic links"), locked(tmp_path / "b", ""):
        pass
    assert sorted(os.listdir(tmp_path)) == [".a.lock", ".b.lock"]
    assert (tmp_path / ".a.lock").read_text() == content


def test_a_file_that_has_taken_the_place_of_the_locks_stays(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    with locked(tmp_path / "a", ""):
        os.replace(tmp_path / "theirs", tmp_path / ".a.lock")
    assert (tmp_path / ".a.lock").read_text() == "theirs"


def test_who_gets_no_lock_leaves_the_holders_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with locked(tmp_path / "a", ""):
        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", refuse)
            with pytest.raises(StorageError, match="has no locks"), locked(tmp_path / "a", ""):
                pass
        # A third one finds the file that is held.
        handle = os.open(tmp_path / ".a.lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)
    assert os.listdir(tmp_path) == []


def test_who_gets_no_lock_leaves_a_file_that_has_taken_the_place_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        os.unlink(tmp_path / ".a.lock")
        (tmp_path / ".a.lock").touch()
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StorageError, match="has no locks"), locked(tmp_path / "a", ""):
        pass
    assert os.listdir(tmp_path) == [".a.lock"]


def test_a_lock_is_on_a_regular_file_which_other_machines_know_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: list[bool] = []
    real = fcntl.flock

    def noted(handle: int, operation: int) -> None:
        kinds.append(stat.S_ISREG(os.fstat(handle).st_mode))
        real(handle, operation)

    monkeypatch.setattr(fcntl, "flock", noted)
    storage = LocalStorage(str(tmp_path))
    storage.write("a", b"1")
    assert storage.replace("a", b"2", (storage.read_versioned("a") or (b"", ""))[1])
    with locked(tmp_path / "b", ""):
        pass
    assert kinds == [True, True]


def test_a_file_system_without_locks_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(fcntl, "lockf", refuse)
    storage = LocalStorage(str(tmp_path / "root"))
    storage.write("a", b"1")
    with pytest.raises(StorageError, match=r"/root: its file system has no locks .*name an output root"):
        storage.replace("a", b"2", (storage.read_versioned("a") or (b"", ""))[1])
    assert os.listdir(tmp_path / "root") == ["a"]
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    with (
        pytest.raises(
            StorageError, match=r"/home: its file system has no locks .*; set DAGSTER_HOME to .* local disk"
        ),
        open_instance(),
    ):
        pass
    with pytest.raises(
        ConfigurationError,
        match=r"ledger .*/kept: its file system has no locks .*DAGSTER_HOME on a local disk.*PostgreSQL",
    ):
        Ledger.open(f"sqlite:///{tmp_path}/kept/ledger.db")
