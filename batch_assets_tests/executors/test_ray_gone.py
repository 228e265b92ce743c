"""How long a Ray that is gone, or has no room, is waited for: no Ray, and a clock that the tests move."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batch_assets.errors import ClusterLost, ConfigurationError, ModelError
from batch_assets.executors.base import Cancelled, WorkerDied
from batch_assets.executors.ray import cluster as cluster_module
from batch_assets.executors.ray import pulse as pulse_module
from batch_assets.executors.ray import shared as shared_module
from batch_assets.executors.ray.cluster import RETURN_SECONDS, RayCluster
from batch_assets.executors.ray.connection import Connection
from batch_assets.executors.ray.deaths import deaths_explained
from batch_assets.executors.ray.pool import LOADING_SECONDS, ROOM_SECONDS, WorkerPool
from batch_assets.executors.ray.pulse import (
    SILENT_SECONDS,
    UNREACHABLE_SECONDS,
    Gone,
    Pulse,
    Unreachable,
    answer_within,
)
from batch_assets.executors.ray.room import Need
from batch_assets.executors.ray.shared import LOSSES_IN_A_ROW, Shared
from batch_assets.executors.ray.worker import Worker
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets_tests.control.builders import make_settings
from batch_assets_tests.waiting import PATIENCE_SECONDS


class Clock:
    """Time that passes as it is slept away."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def _answers_take_their_time(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    """What is asked in a thread is answered, however long the machine takes to run it."""
    monkeypatch.setattr(pulse_module, "ANSWER_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(shared_module, "LEAVE_SECONDS", PATIENCE_SECONDS)


def raising(error: Exception) -> Callable[[], None]:
    def look() -> None:
        raise error

    return look


def alive() -> None:
    pass


class StartingWorker(Worker):
    """One that the cluster has given a place, or has not; it is never done with loading."""

    placed = False

    def is_placed(self) -> bool:
        return self.placed

    def kill(self) -> None:
        pass


class Well(Pulse):
    """That of a Ray which is there."""

    def demand(self) -> None:
        pass


class EmptyPool(WorkerPool):
    """Whose workers never come up."""

    placed = False

    def _start(self) -> Worker:
        worker = StartingWorker(None, None, None, self.pulse)
        worker.placed = self.placed
        return worker

    def _look_at_starting(self) -> None:
        pass


def make_pool(tmp_path: Path, clock: Clock, pulse: Pulse | None = None) -> EmptyPool:
    settings = make_settings(tmp_path, executor={"type": "ray"})
    return EmptyPool(settings, "0" * 16, Need(2, 0), 2, pulse or Well(alive), clock=clock, sleep=clock.sleep)


def wait(pool: WorkerPool) -> None:
    with pool.worker(lambda: False):
        pass


def test_a_cluster_that_never_has_room_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    clock = Clock()
    with pytest.raises(ClusterLost, match=r"for 30 minutes the cluster has had no free 2 CPUs on one node"):
        wait(make_pool(tmp_path, clock))
    assert ROOM_SECONDS < clock.now < ROOM_SECONDS + 10


def test_a_model_that_is_loaded_may_take_longer_but_not_for_ever(tmp_path: Path) -> None:
    clock = Clock()
    pool = make_pool(tmp_path, clock)
    pool.placed = True
    with pytest.raises(
        ClusterLost, match=r"2 workers have loaded the model for 120 minutes and are not done"
    ):
        wait(pool)
    assert LOADING_SECONDS < clock.now < LOADING_SECONDS + 10


def test_whoever_waits_behind_one_that_works_waits_on(tmp_path: Path) -> None:
    clock = Clock()
    pool = make_pool(tmp_path, clock)
    pool.size = 1
    working = StartingWorker(None, None, None, pool.pulse)
    pool._lent.append(working)  # pyright: ignore[reportPrivateUsage]

    def comes_back(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.now > 2 * LOADING_SECONDS:
            pool._put_back(working, alive=True)  # pyright: ignore[reportPrivateUsage]

    pool.sleep = comes_back
    wait(pool)
    assert clock.now > 2 * LOADING_SECONDS


def test_whoever_waits_for_a_worker_learns_that_ray_is_gone(tmp_path: Path) -> None:
    clock = Clock()
    pulse = Pulse(raising(Gone("its raylet on this machine has ended")), clock)
    with pytest.raises(WorkerDied, match="Ray: its raylet") as died:
        pulse.look_now()
    assert died.value.machine_lost
    with pytest.raises(WorkerDied, match="Ray: its raylet"):
        wait(make_pool(tmp_path, clock, pulse))


def test_a_control_store_may_be_away_for_a_while_but_not_until_ray_ends_the_process() -> None:
    clock, looks = Clock(), [Unreachable(), None, Unreachable(), Unreachable()]

    def look() -> None:
        if (error := looks.pop(0)) is not None:
            raise error

    pulse = Pulse(look, clock)
    pulse.look_now()
    clock.now += UNREACHABLE_SECONDS - 1
    pulse.look_now()  # it is back
    clock.now += UNREACHABLE_SECONDS
    pulse.look_now()
    clock.now += UNREACHABLE_SECONDS + 1
    with pytest.raises(
        ClusterLost, match=r"control store \(GCS\) is not to be reached .* the same command goes on"
    ):
        pulse.look_now()


def test_one_that_answers_nothing_is_gone_in_the_end() -> None:
    clock = Clock()
    pulse = Pulse(raising(RuntimeError("busy")), clock)
    pulse.look_now()
    clock.now += SILENT_SECONDS
    pulse.look_now()
    clock.now += 1
    with pytest.raises(ClusterLost, match="it has not answered for 300 s"):
        pulse.look_now()


def test_whoever_has_not_asked_for_long_finds_it_as_it_is() -> None:
    clock = Clock()
    pulse = Pulse(alive, clock)
    pulse.look_now()
    clock.now += 100 * SILENT_SECONDS
    pulse.demand()
    pulse.look_now()


def test_a_question_that_is_never_answered_is_left_behind() -> None:
    never = threading.Event()
    with pytest.raises(TimeoutError):
        answer_within(0.01, never.wait)
    never.set()
    assert answer_within(PATIENCE_SECONDS, lambda: 3) == 3
    with pytest.raises(KeyError):
        answer_within(PATIENCE_SECONDS, lambda: {}["x"])


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


@pytest.fixture
def clock() -> Clock:
    """The clock by which a cluster is waited for."""
    return Clock()


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
    assert RETURN_SECONDS <= clock.now < RETURN_SECONDS + 30
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


@pytest.mark.parametrize("error", [ConnectionResetError("reset by peer"), OSError("Broken pipe")])
def test_a_connection_that_breaks_says_nothing_about_the_shard(
    error: OSError,
) -> None:
    """What `ray.wait` raises where the raylet dies while it is asked, before anybody has seen that it is gone."""
    for pulse in (Pulse(alive), Pulse(raising(Gone("its raylet on this machine has ended")))):
        with pytest.raises(WorkerDied) as died, deaths_explained(pulse, None):
            raise error
        assert died.value.machine_lost


def test_a_connection_that_breaks_while_a_worker_comes_up_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = list[Worker]()

    def note_killed(worker: Worker) -> None:
        killed.append(worker)

    settings = make_settings(tmp_path, executor={"type": "ray"})
    pool = WorkerPool(settings, "0" * 16, Need(2, 0), 1, Well(alive))
    worker = Worker(None, "placing", "loading", pool.pulse)
    monkeypatch.setattr(Worker, "kill", note_killed)
    monkeypatch.setattr("ray.wait", breaks)
    with pytest.raises(WorkerDied, match="Ray says: reset by peer") as died:
        worker.is_placed()
    assert died.value.machine_lost
    monkeypatch.setattr("ray.wait", lambda references, **_: (references, []))
    monkeypatch.setattr("ray.get", breaks)
    pool._starting.append(worker)  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(WorkerDied, match="Ray says: reset by peer") as died:
        wait(pool)
    assert died.value.machine_lost
    assert killed == [worker]


def test_what_loading_raised_is_raised_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.exceptions import RayTaskError

    killed = list[Worker]()

    def note_killed(worker: Worker) -> None:
        killed.append(worker)

    settings = make_settings(tmp_path, executor={"type": "ray"})
    pool = WorkerPool(settings, "0" * 16, Need(2, 0), 1, Well(alive))

    def get(_: Any) -> None:
        raise RayTaskError("load", "its traceback", ModelError("model 'a/b' is not there"))

    monkeypatch.setattr(Worker, "kill", note_killed)
    monkeypatch.setattr("ray.wait", lambda references, **_: (references, []))
    monkeypatch.setattr("ray.get", get)
    pool._starting.append(Worker(None, "placing", "loading", pool.pulse))  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(ModelError, match="'a/b' is not there"):
        wait(pool)
    assert len(killed) == 1


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


def breaks(*_: Any, **__: Any) -> Any:
    raise ConnectionResetError("reset by peer")


def test_what_an_old_reference_meets_on_the_next_ray_says_nothing_about_the_shard() -> None:
    pulse = Pulse(alive)
    with pytest.raises(ValueError, match="owner is unknown"), deaths_explained(pulse, None):
        raise ValueError("owner is unknown")
    pulse.gone = Gone("its raylet on this machine has ended")
    with pytest.raises(WorkerDied) as died, deaths_explained(pulse, None):
        raise ValueError("owner is unknown")
    assert died.value.machine_lost
    with pytest.raises(Cancelled), deaths_explained(pulse, None):
        raise Cancelled
