"""The command's driver where something goes wrong that a while may mend, or nothing will."""

import signal
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._utils.interrupts import capture_interrupts

from batch_assets.errors import StorageError
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets.orchestration.driver import WAIT_SECONDS, Driver, RunFailed
from batch_assets.orchestration.interruption import noted
from batch_assets.sharding.plan import Shard
from batch_assets_tests.fakes import FakeHost
from batch_assets_tests.orchestration.deployments import make_settings, write_shards

MESSAGE = "s3://bucket/out: no answer; check the network, then try again"


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds slept, without having slept them."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


def test_a_store_that_does_not_answer_is_given_time(tmp_path: Path, waited: list[float]) -> None:
    write_shards(tmp_path, 3)
    ledger, said, host = Ledger.open(f"sqlite:///{tmp_path}/ledger.db"), list[str](), FakeHost()

    def fail_twice(shard: Shard) -> None:
        if len(waited) < 2 and shard.key == "g0001-00001":
            raise StorageError(MESSAGE)

    host.before = fail_twice
    with dg.DagsterInstance.ephemeral() as instance:
        driver = Driver(make_settings(tmp_path), instance, ledger, host, say=said.append)
        driver.plan()
        driver.embed()
    assert said == [f"{MESSAGE}; trying again in 1 s"] * 2
    assert {(row.state, row.attempt) for row in ledger.shards("texts")} == {(State.COLLECTED, 1)}
    assert host.computed == ["g0001-00000", "g0001-00001", "g0001-00002"]


def test_a_store_that_never_answers_is_given_up_and_no_attempt_is_lost(
    tmp_path: Path, waited: list[float]
) -> None:
    write_shards(tmp_path, 1)

    def fail(shard: Shard) -> None:
        raise StorageError(MESSAGE)

    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    with dg.DagsterInstance.ephemeral() as instance:
        driver = Driver(make_settings(tmp_path), instance, ledger, FakeHost(before=fail))
        driver.plan()
        with pytest.raises(StorageError, match="no answer"):
            driver.embed()
    assert waited == [1, 2, 4, 8, 16]
    assert [(row.state, row.attempt) for row in ledger.shards("texts")] == [(State.READY, 0)]


def test_shards_that_another_home_planned_are_embedded(tmp_path: Path, waited: list[float]) -> None:
    write_shards(tmp_path, 3)
    ledger, host = Ledger.open(f"sqlite:///{tmp_path}/ledger.db"), FakeHost()
    with dg.DagsterInstance.ephemeral() as mine, dg.DagsterInstance.ephemeral() as other:
        Driver(make_settings(tmp_path), other, ledger, host).plan()
        Driver(make_settings(tmp_path), mine, ledger, host).embed()
    assert host.computed == ["g0001-00000", "g0001-00001", "g0001-00002"]
    assert waited == []


def test_shards_that_were_stopped_by_an_order_since_lifted_are_started(
    tmp_path: Path, waited: list[float]
) -> None:
    write_shards(tmp_path, 2)
    ledger, host = Ledger.open(f"sqlite:///{tmp_path}/ledger.db"), FakeHost()

    def stop_late(shard: Shard) -> None:
        if not host.computed:
            ledger.stop("texts")
            ledger.clear_stop("texts")

    host.before = stop_late
    with dg.DagsterInstance.ephemeral() as instance:
        driver = Driver(make_settings(tmp_path), instance, ledger, host)
        driver.plan()
        driver.embed()
    assert host.computed == ["g0001-00000", "g0001-00001"]
    assert waited == []


def test_a_pass_that_gets_nowhere_is_followed_by_a_rest_and_at_last_by_an_error(
    tmp_path: Path, waited: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(tmp_path, 1)
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    with dg.DagsterInstance.ephemeral() as instance:
        driver = Driver(make_settings(tmp_path), instance, ledger, FakeHost())
        driver.plan()
        monkeypatch.setattr(driver, "materialize_shards", lambda assets, keys: None)
        with pytest.raises(RunFailed, match="make no progress"):
            driver.embed()
    assert waited and set(waited) == {WAIT_SECONDS}


@pytest.mark.usefixtures("interruptible")
def test_a_ctrl_c_that_nobody_raises_ends_the_run_all_the_same(tmp_path: Path) -> None:
    """Dagster forgets one that comes while it keeps its books; Python loses one within a collector's callback."""
    write_shards(tmp_path, 3)
    ledger, host = Ledger.open(f"sqlite:///{tmp_path}/ledger.db"), FakeHost()

    def lose(shard: Shard) -> None:
        with capture_interrupts():
            signal.raise_signal(signal.SIGINT)

    host.before = lose
    with dg.DagsterInstance.ephemeral() as instance, noted():
        driver = Driver(make_settings(tmp_path), instance, ledger, host)
        driver.plan()
        with pytest.raises(KeyboardInterrupt):
            driver.embed()
    assert host.computed == ["g0001-00000"]
    assert [row.state for row in ledger.shards("texts")] == [State.COLLECTED, State.READY, State.READY]


@pytest.mark.usefixtures("interruptible")
def test_a_ctrl_c_that_comes_as_a_run_ends_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(tmp_path, 1)
    handle_new_event = dg.DagsterInstance.handle_new_event

    def interrupted(instance: dg.DagsterInstance, entry: Any, **named: Any) -> None:
        if entry.dagster_event is not None and entry.dagster_event.is_step_success:
            signal.raise_signal(signal.SIGINT)
        handle_new_event(instance, entry, **named)

    monkeypatch.setattr(dg.DagsterInstance, "handle_new_event", interrupted)
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    with dg.DagsterInstance.ephemeral() as instance, noted():
        driver = Driver(make_settings(tmp_path), instance, ledger, FakeHost())
        with pytest.raises(KeyboardInterrupt):
            driver.plan()
    assert [row.state for row in ledger.shards("texts")] == [State.PLANNED]
