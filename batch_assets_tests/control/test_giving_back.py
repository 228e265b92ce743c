"""What ends a piece of work is told as it is, also where the ledger is away as its claim is given back."""

from pathlib import Path

import pytest

from batch_assets.control import uploading
from batch_assets.control.collection import collect_shards
from batch_assets.control.leases import exclusive
from batch_assets.control.pipeline import Pipeline, open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.control.preparation import prepare_shards, queue_shards
from batch_assets.errors import StorageError
from batch_assets.ledger.database import LedgerAway
from batch_assets.ledger.ledger import Ledger
from batch_assets.patience import ticking
from batch_assets_tests.control.builders import make_settings, open_ledger, write_input
from batch_assets_tests.fakes import FakeHost
from batch_assets_tests.ledger.helpers import ME

FULL = StorageError("there is no room")
enders = pytest.mark.parametrize("ender", [KeyboardInterrupt(), FULL], ids=["ctrl-c", "full disk"])


@pytest.fixture
def ledger_away(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For whoever gives something back; whether it waits as shortly as a tick does."""
    shortly: list[bool] = []

    def refuse(*_: object) -> None:
        shortly.append(ticking())
        raise LedgerAway("ledger postgresql://somewhere: refused; start it again")

    monkeypatch.setattr(Ledger, "release", refuse)
    monkeypatch.setattr(Ledger, "release_lease", refuse)
    return shortly


def prepared(folder: Path, host: FakeHost) -> tuple[Pipeline, list[str]]:
    write_input(folder, 1)
    settings = make_settings(folder)
    pipeline = open_pipeline(settings, open_ledger(folder), host.executor(settings))
    keys = plan_source(pipeline).all_keys
    list(prepare_shards(pipeline, keys))
    return pipeline, keys


@enders
def test_of_a_shard_that_is_computed(tmp_path: Path, ledger_away: list[bool], ender: BaseException) -> None:
    def end(_: object) -> None:
        raise ender

    pipeline, keys = prepared(tmp_path, FakeHost(before=end))
    queue_shards(pipeline, keys)
    with pytest.raises(type(ender)) as caught:
        list(collect_shards(pipeline, keys))
    assert caught.value is ender
    assert ledger_away == [ender is not FULL]


@enders
def test_of_a_job_that_is_uploaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger_away: list[bool], ender: BaseException
) -> None:
    def end(*_: object) -> bool:
        raise ender

    pipeline, keys = prepared(tmp_path, FakeHost())
    monkeypatch.setattr(uploading, "queue_job", end)
    with pytest.raises(type(ender)) as caught:
        uploading._upload(pipeline, pipeline.plan_shards(keys)[keys[0]])
    assert caught.value is ender
    assert ledger_away == [ender is not FULL]


@enders
def test_of_a_lease_by_name(tmp_path: Path, ledger_away: list[bool], ender: BaseException) -> None:
    with pytest.raises(type(ender)) as caught, exclusive(open_ledger(tmp_path), "merge:texts", ME):
        raise ender
    assert caught.value is ender
    assert ledger_away == [ender is not FULL]


@pytest.mark.usefixtures("ledger_away")
def test_where_nothing_else_ended_it_the_ledger_did(tmp_path: Path) -> None:
    with pytest.raises(LedgerAway), exclusive(open_ledger(tmp_path), "merge:texts", ME):
        pass
