"""The shard runner whose workers are elsewhere: the run claims and tells the ledger, a worker computes and commits."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from batch_assets.embeddings.schema import EMBED, GENERATE, Task
from batch_assets.encoders.fingerprint import fingerprint
from batch_assets.errors import ClusterLost, ConfigurationError
from batch_assets.executors.base import Limits, Progress, WorkerDied
from batch_assets.executors.ray.pool import WorkerPool
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import LOSSES_FORGIVEN
from batch_assets.settings.in_place import RayExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.storage import Storage
from batch_assets.worker.attempt import Attempt, Processed, ShardRun, first_run

logger = plain_logger(__name__)


class Cluster(Protocol):
    """What an executor takes of the cluster that it is made on, see `cluster.py`."""

    progress: Progress | None

    def pool(
        self, settings: PipelineSettings, is_cancelled: Callable[[], bool] = lambda: False
    ) -> WorkerPool: ...


@dataclass
class RayExecutor:
    """Has a shard run by a worker of the cluster. See `base.ShardRunner` for the verbs."""

    cluster: Cluster
    settings: PipelineSettings
    kind: str = "ray"
    in_place: bool = True
    _cancelled: set[str] = field(default_factory=set)

    @property
    def limits(self) -> Limits:
        """As many jobs as there are to be workers; with `auto`, only the cluster knows."""
        workers = ray_settings(self.settings).workers
        return Limits(jobs=None if workers == "auto" else workers)

    def at_once(self) -> int:
        """As many jobs as there are workers. Joins the cluster."""
        return self.cluster.pool(self.settings).size

    @property
    def task(self) -> Task:
        if self.settings.task == GENERATE:
            raise ConfigurationError(
                "task: executor ray makes embeddings, not answers; leave task out, or name another executor.type"
            )
        return EMBED

    def exclusive_device(self) -> str | None:
        """None: the cluster gives out its GPUs itself, and this machine's are not touched."""
        return None

    def fingerprint(self) -> str:
        _ = self.task
        return fingerprint(self.settings)

    def check(self) -> None:
        """Have one worker load the model; the others begin to."""
        for _ in range(LOSSES_FORGIVEN):
            try:
                self.cluster.pool(self.settings).load()
                return
            except WorkerDied as error:
                logger.warning("%s; the model is loaded again", error)
        raise ClusterLost(
            f"Ray has been lost {LOSSES_FORGIVEN} times while the model was loaded; give its workers more memory, or "
            "have fewer"
        )

    def cancel(self, job: str) -> None:
        """Whoever runs it, or comes to run it, gets Cancelled; its worker is killed."""
        self._cancelled.add(job)

    def run(self, attempt: Attempt, storage: Storage) -> ShardRun:
        def is_cancelled() -> bool:
            return attempt.job in self._cancelled

        pool = self.cluster.pool(self.settings, is_cancelled)
        with pool.worker(is_cancelled) as worker:
            settings = share_of_calls(attempt.settings, pool.size)
            # No ledger is asked there, so the files' names must differ from those of any other root at this place.
            # The plan may be large: a worker reads it itself.
            told = replace(attempt, settings=settings, run=first_run(attempt.deployment), plan=None)
            with contextlib.closing(worker.run(told, storage, is_cancelled)) as run:
                return (yield from self._reported(run))

    def _reported(self, run: ShardRun) -> ShardRun:
        """The run, whose progress the host is told of."""
        progress = self.cluster.progress
        while True:
            try:
                step = next(run)
            except StopIteration as ended:
                return ended.value
            if progress is not None and isinstance(step, Processed):
                progress(step.records, step.tokens)
            yield step


def share_of_calls(settings: PipelineSettings, workers: int) -> PipelineSettings:
    """The settings for one of so many workers: they cannot ask each other, so each has an equal share of the cap."""
    cap = settings.calls_per_second
    return settings if cap is None else settings.model_copy(update={"calls_per_second": cap / workers})


def ray_settings(settings: PipelineSettings) -> RayExecutorSettings:
    """The executor's own settings."""
    assert isinstance(settings.executor, RayExecutorSettings), settings.executor.type
    return settings.executor
