"""A disk that is full, a root that cannot be written: said in a sentence, nothing torn, and it goes on."""

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from batch_assets.control.preflight import check_configuration
from batch_assets.errors import ConfigurationError, StorageError
from batch_assets.ledger.states import State
from batch_assets.sharding.plan import Shard
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

NOBODY = 65_534


def test_on_a_full_disk_the_shard_is_given_back_untried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_input(tmp_path, 3)
    settings, ledger = make_settings(tmp_path), open_ledger(tmp_path)

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    def fill(shard: Shard) -> None:
        if shard.key == "g0001-00001":
            monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(
        StorageError, match=r"g0001-00001/.*: No space left on device; [\d,]+ bytes are free; make room there"
    ):
        embed_all(settings, ledger, FakeHost(before=fill))
    monkeypatch.undo()
    states = [(row.state, row.attempt) for row in ledger.shards("texts")]
    assert states == [(State.COLLECTED, 1), (State.READY, 0), (State.READY, 0)]
    assert not list((tmp_path / "out" / "shards" / "g0001-00001").glob("*.parquet"))
    after = FakeHost()
    run(settings, ledger, after)
    assert after.computed == ["g0001-00001", "g0001-00002"]
    assert_published(tmp_path / "out", 3 * PER_SHARD)


@pytest.mark.parametrize("root", ["in.jsonl/out", "in.jsonl"])
def test_a_root_that_cannot_be_made_is_refused_before_anything_is_written(tmp_path: Path, root: str) -> None:
    write_input(tmp_path, 1)
    settings = make_settings(tmp_path, output={"root": f"{tmp_path}/{root}"})
    with pytest.raises(ConfigurationError, match=f"output.root: .*{root} cannot be a folder"):
        check_configuration(settings, FakeHost().executor(settings))


def test_a_read_only_root_is_refused_before_anything_is_written() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)
        write_input(folder, 1)
        (folder / "closed").mkdir(mode=0o555)
        (folder / "open").mkdir()
        allowed = make_settings(folder, output={"root": f"{folder}/open/out"})
        # Also brings in whatever is imported late: another user may not be able to read it.
        check_configuration(allowed, FakeHost().executor(allowed))
        settings = make_settings(folder, output={"root": f"{folder}/closed/out"})
        told = as_a_common_user(lambda: check_configuration(settings, FakeHost().executor(settings)))
    assert "closed is read-only for this user" in told


def as_a_common_user(act: Callable[[], object]) -> str:
    """Call `act` in a child that is not root; what it raised, in words."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        told = "nothing was raised"
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            act()
        except ConfigurationError as error:
            told = str(error)
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
        os.write(writer, told.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as file:
        return file.read()
