"""How long a worker is waited for that has no room, or loads its model, and what is said of one that fails to."""

from pathlib import Path

import pytest

from batch_assets.errors import ClusterLost, ModelError
from batch_assets.executors.base import WorkerDied
from batch_assets.executors.ray.pool import LOADING_SECONDS, ROOM_SECONDS, WorkerPool
from batch_assets.executors.ray.pulse import Gone, Pulse
from batch_assets.executors.ray.room import Need
from batch_assets.executors.ray.worker import Worker
from batch_assets_tests.control.builders import make_settings
from batch_assets_tests.executors.ray.helpers import Clock, alive, breaks, raising


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


def test_a_cluster_that_never_has_room_is_not_waited_for_for_ever(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(ClusterLost, match=r"for 30 minutes the cluster has had no free 2 CPUs on one node"):
        wait(make_pool(tmp_path, clock))
    assert ROOM_SECONDS < clock.now < ROOM_SECONDS + 10


def test_a_model_that_is_loaded_may_take_longer_but_not_for_ever(tmp_path: Path, clock: Clock) -> None:
    pool = make_pool(tmp_path, clock)
    pool.placed = True
    with pytest.raises(
        ClusterLost, match=r"2 workers have loaded the model for 120 minutes and are not done"
    ):
        wait(pool)
    assert LOADING_SECONDS < clock.now < LOADING_SECONDS + 10


def test_whoever_waits_behind_one_that_works_waits_on(tmp_path: Path, clock: Clock) -> None:
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


def test_whoever_waits_for_a_worker_learns_that_ray_is_gone(tmp_path: Path, clock: Clock) -> None:
    pulse = Pulse(raising(Gone("its raylet on this machine has ended")), clock)
    with pytest.raises(WorkerDied, match="Ray: its raylet") as died:
        pulse.look_now()
    assert died.value.machine_lost
    with pytest.raises(WorkerDied, match="Ray: its raylet"):
        wait(make_pool(tmp_path, clock, pulse))


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[Worker]:
    """The workers that are killed from now on."""
    killed = list[Worker]()

    def note(worker: Worker) -> None:
        killed.append(worker)

    monkeypatch.setattr(Worker, "kill", note)
    return killed


@pytest.fixture
def loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerPool:
    """A pool whose one worker has ended its loading: how, `ray.get` says."""
    settings = make_settings(tmp_path, executor={"type": "ray"})
    pool = WorkerPool(settings, "0" * 16, Need(2, 0), 1, Well(alive))
    pool._starting.append(Worker(None, "placing", "loading", pool.pulse))  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr("ray.wait", lambda references, **_: (references, []))
    return pool


def test_a_connection_that_breaks_while_a_worker_is_placed_is_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ray.wait", breaks)
    with pytest.raises(WorkerDied, match="Ray says: reset by peer") as died:
        Worker(None, "placing", "loading", Well(alive)).is_placed()
    assert died.value.machine_lost


def test_a_connection_that_breaks_while_a_worker_loads_is_explained(
    loading: WorkerPool, killed: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.get", breaks)
    with pytest.raises(WorkerDied, match="Ray says: reset by peer") as died:
        wait(loading)
    assert died.value.machine_lost
    assert len(killed) == 1


def test_what_loading_raised_is_raised_as_it_was(
    loading: WorkerPool, killed: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.exceptions import RayTaskError

    error = RayTaskError("load", "its traceback", ModelError("model 'a/b' is not there"))
    monkeypatch.setattr("ray.get", raising(error))
    with pytest.raises(ModelError, match="'a/b' is not there"):
        wait(loading)
    assert len(killed) == 1
