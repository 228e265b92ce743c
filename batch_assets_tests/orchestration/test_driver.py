"""The command's driver where something goes wrong that a while may mend, or nothing will."""

import errno
import os
import pkgutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._utils.interrupts import capture_interrupts

from batch_assets.errors import StorageError
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets.orchestration.driver import Driver
from batch_assets.orchestration.interruption import noted
from batch_assets.orchestration.run_failure import RunFailed
from batch_assets.retry_policy import AWAY_SECONDS, HELD_SECONDS, PASSES_WITHOUT_PROGRESS
from batch_assets.sharding.plan import Shard
from batch_assets_tests.command import published
from batch_assets_tests.fakes import FakeHost, find_parity
from batch_assets_tests.orchestration.deployments import PER_SHARD, make_settings, write_shards

MESSAGE = "s3://bucket/out: no answer; check the network, then try again"


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds slept, without having slept them: by as much the clock goes on, and by no more."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    monkeypatch.setattr(time, "monotonic", lambda: sum(seconds))
    return seconds


def test_a_store_that_does_not_answer_is_given_time(tmp_path: Path, waited: list[float]) -> None:
    write_shards(tmp_path, 3)
    ledger, said, host = Ledger.open(f"sqlite:///{tmp_path}/ledger.db"), list[str](), FakeHost()

    def fail_twice(shard: Shard) -> None:
        if sum(waited) < 60 and shard.key == "g0001-00001":
            raise StorageError(MESSAGE)

    host.before = fail_twice
    with dg.DagsterInstance.ephemeral() as instance:
        driver = Driver(make_settings(tmp_path), instance, ledger, host, say=said.append)
        driver.plan()
        driver.embed()
    assert said and all(sentence.startswith(f"{MESSAGE}; trying again for ") for sentence in said)
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
    assert sum(waited) == pytest.approx(AWAY_SECONDS)
    assert [(row.state, row.attempt) for row in ledger.shards("texts")] == [(State.READY, 0)]


def test_the_pass_that_embeds_all_counts_however_many_came_to_nothing_before_it(
    tmp_path: Path, waited: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(tmp_path, 1)
    ledger, host = Ledger.open(f"sqlite:///{tmp_path}/ledger.db"), FakeHost()
    with dg.DagsterInstance.ephemeral() as instance:
        driver = Driver(make_settings(tmp_path), instance, ledger, host)
        driver.plan()
        embed_shards, passes = driver.materialize_shards, list[None]()

        def embed_at_last(names: Sequence[str], keys: Sequence[str]) -> Exception | None:
            passes.append(None)
            return None if len(passes) <= PASSES_WITHOUT_PROGRESS else embed_shards(names, keys)

        monkeypatch.setattr(driver, "materialize_shards", embed_at_last)
        driver.embed()
    assert host.computed == ["g0001-00000"]


@pytest.mark.parametrize("step", ["plan", "merge"])
def test_planning_and_merging_wait_for_a_store_as_well(
    tmp_path: Path, waited: list[float], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    write_shards(tmp_path, 1)
    find_parity(monkeypatch)
    asset, function = (
        ("shard_plan", "plan_source") if step == "plan" else ("merged_embeddings", "merge_shards")
    )
    place = f"batch_assets.orchestration.assets.{asset}.{function}"
    real = pkgutil.resolve_name(place)

    def away(*arguments: Any, **options: Any) -> Any:
        if sum(waited) < 60:
            raise StorageError(MESSAGE)
        return real(*arguments, **options)

    monkeypatch.setattr(place, away)
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    with dg.DagsterInstance.ephemeral() as instance:
        driver = Driver(make_settings(tmp_path), instance, ledger, FakeHost())
        driver.plan()
        driver.embed()
        driver.merge()
    assert published(tmp_path / "out").height == PER_SHARD


def test_a_full_disk_ends_the_run_at_once_and_embeds_nothing_twice(
    tmp_path: Path, waited: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(tmp_path, 3)
    ledger, host = Ledger.open(f"sqlite:///{tmp_path}/ledger.db"), FakeHost()

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    def fill(shard: Shard) -> None:
        if shard.key == "g0001-00001":
            monkeypatch.setattr(os, "fsync", full)

    host.before = fill
    with dg.DagsterInstance.ephemeral() as instance:
        driver = Driver(make_settings(tmp_path), instance, ledger, host)
        driver.plan()
        with pytest.raises(
            StorageError, match=r"g0001-00001/.*No space left on device; [\d,]+ bytes are free; make room"
        ):
            driver.embed()
    assert host.computed == ["g0001-00000", "g0001-00001"] and waited == []
    states = [(row.state, row.attempt) for row in ledger.shards("texts")]
    assert states == [(State.COLLECTED, 1), (State.READY, 0), (State.READY, 0)]


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
    assert waited and set(waited) == {HELD_SECONDS}


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
    assert [(row.state, row.attempt) for row in ledger.shards("texts")] == [(State.READY, 0)] * 3


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
