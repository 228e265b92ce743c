"""The workers of one model: started as they are wanted, lent to one shard each, replaced when they die.

How many there may be is counted in `room.py`; what a worker does is in `actor.py`.
"""

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.errors import ConfigurationError, ModelError
from batch_assets.executors.base import Cancelled, WorkerDied
from batch_assets.executors.ray.actor import Ended, Loaded, RayWorker
from batch_assets.executors.ray.deaths import explain_death, summary
from batch_assets.executors.ray.room import Need
from batch_assets.plain_text import plain_logger
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import Shard

LOOK_SECONDS = 0.2
SPEAK_SECONDS = 30.0
FETCHES_AHEAD = 2
DEATHS_IN_LOADING = 3
"""So many workers in a row that die while they load the model: then it is the model."""

logger = plain_logger(__name__)


@dataclass(eq=False)
class Worker:
    """One worker as the driver has it: Ray's handle of the actor, and what is known of it once it has loaded."""

    actor: Any
    loading: Any
    loaded: Loaded | None = None
    timings: dict[str, float] = field(default_factory=dict)

    def embed(
        self, settings: PipelineSettings, shard: Shard, is_cancelled: Callable[[], bool]
    ) -> Generator[Outcomes, None, None]:
        """The shard's outcomes; behind the last, `timings` are the shard's.

        Raises what the worker raises, WorkerDied, and Cancelled.
        """
        begun = self.actor.begin.remote(settings, shard)
        waiting = deque(self.actor.fetch.remote() for _ in range(FETCHES_AHEAD))
        try:
            self._get(begun, is_cancelled)
        except WorkerDied as error:
            error.machine_lost = True  # it was dead before: nothing of the shard had begun
            raise
        while not isinstance(found := self._get(waiting.popleft(), is_cancelled), Ended):
            waiting.append(self.actor.fetch.remote())
            yield _out_of_the_store(found)
            del found
        self.timings = found.timings

    def _get(self, reference: Any, is_cancelled: Callable[[], bool]) -> Any:
        import ray
        import ray.exceptions

        try:
            while not ray.wait([reference], timeout=LOOK_SECONDS)[0]:
                if is_cancelled():
                    raise Cancelled
            return ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            raise explain_death(error, self.loaded) from error

    def kill(self) -> None:
        """End the process, whatever it is at: a batch cannot be interrupted otherwise."""
        import ray

        with contextlib.suppress(Exception):  # it, its node or all of Ray may be gone
            ray.kill(self.actor, no_restart=True)


@dataclass(eq=False)
class WorkerPool:
    """At most `size` workers with the model of `settings`, whose fingerprint is `expected`."""

    settings: PipelineSettings
    expected: str
    need: Need
    size: int
    closed: bool = False
    _idle: list[Worker] = field(default_factory=list)
    _starting: list[Worker] = field(default_factory=list)
    _lent: list[Worker] = field(default_factory=list)
    _deaths: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def worker(self, is_cancelled: Callable[[], bool]) -> Iterator[Worker]:
        """Have a worker; waits for one.

        A block that ends by an error of another than the worker leaves it in the middle of a shard:
        it is killed, and another takes its place.
        """
        worker = self._take(is_cancelled)
        try:
            yield worker
        except BaseException as error:
            self._put_back(worker, alive=_is_of_the_worker(error))
            raise
        self._put_back(worker, alive=True)

    def is_idle(self) -> bool:
        """Whether no shard has a worker of this pool."""
        return not self._lent

    def load(self) -> None:
        """Start all workers, and wait until the first has loaded the model. Raises ModelError, ConfigurationError."""
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
        said = time.monotonic()
        while not is_cancelled() and not self.closed:
            with self._lock:
                self._look_at_starting()
                if self._idle:
                    worker = self._idle.pop()
                    self._lent.append(worker)
                    return worker
                if len(self._starting) + len(self._lent) < self.size:
                    self._starting.append(self._start())
            if time.monotonic() - said > SPEAK_SECONDS:
                said = time.monotonic()
                logger.info(
                    "%d of %d workers are up; the others load the model, or wait for others to leave the cluster",
                    len(self._lent) + len(self._idle),
                    self.size,
                )
            time.sleep(LOOK_SECONDS)
        raise Cancelled

    def _put_back(self, worker: Worker, *, alive: bool) -> None:
        with self._lock:
            if worker in self._lent:  # not closed meanwhile
                self._lent.remove(worker)
                if alive:
                    self._idle.append(worker)
        if not alive:
            worker.kill()

    def _start(self) -> Worker:
        import ray

        actor_class: Any = ray.remote(RayWorker)
        actor = actor_class.options(
            num_cpus=self.need.cpus, num_gpus=self.need.gpus, max_restarts=0, max_task_retries=0
        ).remote()
        device = "cuda" if self.need.gpus else "cpu"
        cores = max(1, math.floor(self.need.cpus))
        return Worker(actor, actor.load.remote(self.settings, device, cores, self.expected))

    def _look_at_starting(self) -> None:
        """Let those that have loaded be had. Raises what loading raised."""
        import ray
        import ray.exceptions

        if not self._starting:
            return
        references = [worker.loading for worker in self._starting]
        ready = set(ray.wait(references, num_returns=len(references), timeout=0)[0])
        for worker in [worker for worker in self._starting if worker.loading in ready]:
            self._starting.remove(worker)
            try:
                worker.loaded = ray.get(worker.loading)
            except ray.exceptions.RayTaskError as error:
                worker.kill()
                raise error.cause from error
            except ray.exceptions.RayError as error:
                worker.kill()
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


def _out_of_the_store(outcomes: Outcomes) -> Outcomes:
    """The vectors copied: the writer keeps them for a while, and would keep the whole object in Ray's store."""
    outcomes.vectors = np.array(outcomes.vectors)
    return outcomes
