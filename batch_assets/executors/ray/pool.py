"""The workers of one model: started as they are wanted, lent to one shard each, replaced when they die.

How many there may be is counted in `room.py`; how one is asked is in `worker.py`.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from batch_assets.errors import ClusterLost, ConfigurationError, ModelError
from batch_assets.executors.base import Cancelled, WorkerDied
from batch_assets.executors.ray.actor import RayWorker
from batch_assets.executors.ray.deaths import deaths_explained, summary
from batch_assets.executors.ray.pulse import Pulse
from batch_assets.executors.ray.room import Need
from batch_assets.executors.ray.worker import LOOK_SECONDS, Worker
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import DEATHS_IN_LOADING, LOADING_SECONDS, ROOM_SECONDS, SPEAK_SECONDS
from batch_assets.settings.pipeline import PipelineSettings

logger = plain_logger(__name__)


@dataclass(eq=False)
class WorkerPool:
    """At most `size` workers with the model of `settings`, whose fingerprint is `expected`, on the Ray of `pulse`."""

    settings: PipelineSettings
    expected: str
    need: Need
    size: int
    pulse: Pulse
    closed: bool = False
    has_worked: bool = False
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _idle: list[Worker] = field(default_factory=list)
    _starting: list[Worker] = field(default_factory=list)
    _lent: list[Worker] = field(default_factory=list)
    _deaths: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def worker(self, is_cancelled: Callable[[], bool]) -> Iterator[Worker]:
        """Have a worker; waits for one as long as there is hope. Raises WorkerDied and ClusterLost where there is none.

        A worker that the block leaves in the middle of a shard, or dead, is killed, and another takes its place.
        """
        worker = self._take(is_cancelled)
        try:
            yield worker
        except BaseException as error:
            dead = isinstance(error, WorkerDied | ClusterLost)
            self._put_back(worker, alive=not dead and (not worker.is_at_work or _is_of_the_worker(error)))
            raise
        self._put_back(worker, alive=True)
        self.has_worked = True

    def is_idle(self) -> bool:
        """Whether no shard has a worker of this pool."""
        return not self._lent

    def on(self, pulse: Pulse) -> "WorkerPool":
        """The same, with no worker yet, on the Ray that has come after the one that is gone."""
        return WorkerPool(self.settings, self.expected, self.need, self.size, pulse)

    def load(self) -> None:
        """Start all workers, and wait until the first has loaded the model.

        Raises ModelError, ConfigurationError, and what `worker` raises.
        """
        with self._lock:
            while len(self._idle) + len(self._starting) + len(self._lent) < self.size:
                self._starting.append(self._start())
        with self.worker(lambda: False):
            pass

    def close(self) -> None:
        """Kill all workers."""
        with self._lock:
            self.closed = True
            for worker in (*self._idle, *self._starting, *self._lent):
                worker.kill()
            self._idle, self._starting, self._lent = [], [], []

    def _take(self, is_cancelled: Callable[[], bool]) -> Worker:
        said = hoped = self.clock()
        placed = 0
        while not is_cancelled():
            self.pulse.demand()
            if self.closed:
                break
            with self._lock:
                self._look_at_starting()
                if self._idle:
                    worker = self._idle.pop()
                    self._lent.append(worker)
                    return worker
                if len(self._starting) + len(self._lent) < self.size:
                    self._starting.append(self._start())
                now, up = self.clock(), len(self._lent)
                before, placed = placed, sum(worker.is_placed() for worker in self._starting)
            if up or placed > before:
                hoped = now  # one that works comes back, and one with a place loads the model
            self._demand_hope(now - hoped, placed)
            if now - said > SPEAK_SECONDS:
                said = now
                logger.info(
                    "%d of %d workers are up; the others load the model, or wait for others to leave the cluster",
                    up,
                    self.size,
                )
            self.sleep(LOOK_SECONDS)
        raise Cancelled

    def _demand_hope(self, seconds: float, placed: int) -> None:
        """Raise ClusterLost where no worker has come up for so long that none will."""
        if placed and seconds > LOADING_SECONDS:
            raise ClusterLost(
                f"executor ray: {placed} workers have loaded the model for {seconds / 60:.0f} minutes and are not "
                "done; see on their nodes whether it is fetched from somewhere that does not answer, then run the same "
                "command again: it goes on"
            )
        if not placed and seconds > ROOM_SECONDS:
            raise ClusterLost(
                f"executor ray: for {seconds / 60:.0f} minutes the cluster has had no free {self.need} on one node for "
                "a worker; others hold them (`ray status` tells), or nodes are gone: wait until they are free, add "
                "nodes, or write fewer for each worker, then run the same command again: it goes on"
            )

    def _put_back(self, worker: Worker, *, alive: bool) -> None:
        with self._lock:
            if worker in self._lent:  # not closed meanwhile
                self._lent.remove(worker)
                if alive:
                    worker.is_at_work = False
                    self._idle.append(worker)
        if not alive:
            worker.kill()

    def _start(self) -> Worker:
        import ray

        actor_class: Any = ray.remote(RayWorker)
        device = "cuda" if self.need.gpus else "cpu"
        cores = max(1, math.floor(self.need.cpus))
        with deaths_explained(self.pulse, None):
            actor = actor_class.options(
                num_cpus=self.need.cpus, num_gpus=self.need.gpus, max_restarts=0, max_task_retries=0
            ).remote()
            placing = actor.here.remote()
            loading = actor.load.remote(self.settings, device, cores, self.expected)
            return Worker(actor, placing, loading, self.pulse)

    def _look_at_starting(self) -> None:
        """Let those that have loaded be had. Raises what loading raised."""
        import ray
        import ray.exceptions

        if not self._starting:
            return
        references = [worker.loading for worker in self._starting]
        with deaths_explained(self.pulse, None):
            ready = set(ray.wait(references, num_returns=len(references), timeout=0)[0])
        for worker in [worker for worker in self._starting if worker.loading in ready]:
            self._starting.remove(worker)
            with deaths_explained(self.pulse, None):
                try:
                    worker.loaded = ray.get(worker.loading)
                except ray.exceptions.RayTaskError:
                    worker.kill()
                    raise
                except Exception as error:  # it has died, or the connection to it breaks
                    # First: of a Ray that is gone nobody would answer that it is killed.
                    self.pulse.look_now()
                    worker.kill()
                    if not isinstance(error, ray.exceptions.RayError):
                        raise
                    self._died_in_loading(error)
                    continue
            self._deaths = 0
            self._idle.append(worker)

    def _died_in_loading(self, error: Exception) -> None:
        text = summary(error)
        if "No module named 'batch_assets" in str(error):
            raise ConfigurationError(
                "executor ray: a node of the cluster lacks batch-assets; install it there, best by running the "
                "nodes from the image that the run has (docs/ray.md)"
            ) from error
        self._deaths += 1
        if self._deaths >= DEATHS_IN_LOADING:
            raise ModelError(
                f"model {self.settings.model.id!r}: {self._deaths} workers in a row died while they loaded it: "
                f"{text}; give each worker more memory, or have fewer workers"
            ) from error
        logger.warning("a worker died while it loaded the model: %s; another one is started", text)


def _is_of_the_worker(error: BaseException) -> bool:
    """Whether the worker itself raised `error`, and so has ended its shard."""
    from ray.exceptions import RayTaskError

    return isinstance(error.__cause__, RayTaskError)
