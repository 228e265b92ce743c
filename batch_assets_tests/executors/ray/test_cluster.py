"""A cluster that is gone: started anew, joined again or waited for, by a clock that the tests move."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batch_assets.errors import ClusterLost, ConfigurationError
from batch_assets.executors.base import Cancelled
from batch_assets.executors.ray import cluster as cluster_module
from batch_assets.executors.ray import shared as shared_module
from batch_assets.executors.ray.cluster import RayCluster
from batch_assets.executors.ray.connection import Connection
from batch_assets.executors.ray.pulse import Gone
from batch_assets.executors.ray.shared import LOSSES_IN_A_ROW, Shared
from batch_assets.retry_policy import CLUSTER_RETURN_SECONDS
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets_tests.control.builders import make_settings
from batch_assets_tests.executors.ray.helpers import Clock, alive, breaks


class Rays:
    """What joining meets, one after the other: True is a Ray, False an address where none answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: bool) -> None:
        self.answers, self.joined, self.left = list(answers), list[str | None](), 0
        self.initialized = False
        self.util = self.client = self.ray = self
        monkeypatch.setattr(shared_module, "join", self.join)
        monkeypatch.setattr(shared_module, "leave", self.leave)
        monkeypatch.setattr(shared_module, "import_ray", lambda: self)
        monkeypatch.setattr(shared_module, "look_at_own", lambda *_: alive)
        monkeypatch.setattr(shared_module, "atexit", SimpleNamespace(register=lambda _: None))
        self.shared = Shared()
        monkeypatch.setattr(cluster_module, "_shared", self.shared)

    def is_initialized(self) -> bool:
        return self.initialized

    def is_connected(self) -> bool:
        return False

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 2.0}}]

    def join(self, asked: str, *, again: str | None = None) -> Connection:
        self.joined.append(again)
        if not (self.answers.pop(0) if self.answers else False):
            raise ConfigurationError(f"executor.address: no Ray answers at {asked}")
        self.initialized = True
        return Connection(asked, asked, ours=True, again="local" if asked == "local" else asked)

    def leave(self) -> None:
        self.left, self.initialized = self.left + 1, False

    def lose(self, *, final: bool = False) -> None:
        assert self.shared.pulse is not None
        self.shared.pulse.gone = Gone("its raylet on this machine has ended", final=final)


def test_one_started_here_is_started_anew_with_as_many_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rays = Rays(monkeypatch, True, True)
    settings = make_settings(tmp_path, executor={"type": "ray", "address": "local"})
    before = RayCluster().pool(settings)
    rays.lose()
    after = RayCluster().pool(settings)
    assert (rays.joined, rays.left) == ([None, "local"], 1)
    assert after is not before and after.size == before.size == 2 and after.pulse.gone is None
    assert RayCluster().pool(settings) is after


def test_one_that_is_lost_each_time_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rays = Rays(monkeypatch, *[True] * 10)
    settings = make_settings(tmp_path, executor={"type": "ray", "address": "local"})
    RayCluster().pool(settings).has_worked = True
    for _ in range(LOSSES_IN_A_ROW):
        rays.lose()
        RayCluster().pool(settings)
    rays.lose()
    with pytest.raises(ClusterLost, match="for the 4th time before a shard was done"):
        RayCluster().pool(settings)


def test_a_cluster_that_comes_back_is_joined_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    rays = Rays(monkeypatch, True, False, False, True)
    settings = make_settings(tmp_path, executor={"type": "ray", "address": "ray://head:10001"})
    cluster = RayCluster(clock=clock, sleep=clock.sleep)
    cluster.pool(settings)
    rays.initialized = False  # as a client of Ray ends that lost its cluster
    assert cluster.pool(settings).size == 2
    assert rays.joined == [None, *["ray://head:10001"] * 3]


def a_cluster_that_is_lost(folder: Path, monkeypatch: pytest.MonkeyPatch) -> PipelineSettings:
    """A pipeline on a cluster that was joined, and answers no more."""
    rays = Rays(monkeypatch, True)
    settings = make_settings(folder, executor={"type": "ray", "address": "ray://head:10001"})
    RayCluster().pool(settings)
    rays.lose()
    return settings


def test_a_cluster_that_stays_away_ends_the_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    settings = a_cluster_that_is_lost(tmp_path, monkeypatch)
    with pytest.raises(
        ClusterLost, match=r"ray://head:10001 is gone, and has not come back in 5 minutes; .* goes on"
    ):
        RayCluster(clock=clock, sleep=clock.sleep).pool(settings)
    assert CLUSTER_RETURN_SECONDS <= clock.now < CLUSTER_RETURN_SECONDS + 30
    with pytest.raises(ConfigurationError, match="no Ray answers"):  # the next one is told what anybody is
        RayCluster().pool(settings)


def test_whoever_is_interrupted_waits_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    settings = a_cluster_that_is_lost(tmp_path, monkeypatch)
    with pytest.raises(Cancelled):
        RayCluster(clock=clock, sleep=clock.sleep).pool(settings, lambda: clock.now > 10)
    assert clock.now < 30


def test_without_its_control_store_no_other_is_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rays = Rays(monkeypatch, True, True)
    settings = make_settings(tmp_path, executor={"type": "ray", "address": "local"})
    RayCluster().pool(settings)
    rays.lose(final=True)
    with pytest.raises(ClusterLost, match="can join no other"):
        RayCluster().pool(settings)
    assert rays.joined == [None]


def test_a_cluster_that_does_not_tell_of_its_nodes_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    rays = Rays(monkeypatch, True)
    settings = make_settings(tmp_path, executor={"type": "ray", "address": "ray://head:10001"})
    told = rays.nodes

    def nodes() -> list[dict[str, Any]]:
        return told() if clock.now > 60 else breaks()

    monkeypatch.setattr(rays, "nodes", nodes)
    cluster = RayCluster(clock=clock, sleep=clock.sleep)
    assert cluster.pool(settings).size == 2
    monkeypatch.setattr(rays, "nodes", breaks)
    rays.shared.pools.clear()
    with pytest.raises(
        ClusterLost,
        match=r"ray://head:10001 does not tell of its nodes \(reset by peer\), and has not come back",
    ):
        cluster.pool(settings)
