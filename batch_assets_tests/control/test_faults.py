"""A disk that is full, a root that cannot be written: said in a sentence, nothing torn, and it goes on."""

import errno
import os
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

    with pytest.raises(StorageError, match=r"g0001-00001/.*: No space left on device; make room there"):
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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_root_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    write_input(tmp_path, 1)
    (tmp_path / "closed").mkdir(mode=0o500)
    settings = make_settings(tmp_path, output={"root": f"{tmp_path}/closed/out"})
    with pytest.raises(ConfigurationError, match="closed is read-only for this user"):
        check_configuration(settings, FakeHost().executor(settings))
