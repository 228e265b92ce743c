"""The executor in place whose workers are elsewhere: the run claims, writes and commits, a worker computes."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.embeddings.schema import EMBED, GENERATE, Task
from batch_assets.encoders.fingerprint import fingerprint
from batch_assets.errors import ClusterLost, ConfigurationError
from batch_assets.executors.base import Limits, WorkerDied
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import LOSSES_FORGIVEN
from batch_assets.settings.in_place import RayExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import Shard

if TYPE_CHECKING:
    from batch_assets.executors.ray.cluster import RayCluster

logger = plain_logger(__name__)


@dataclass
class RayExecutor:
    """Has a shard's records embedded by a worker of the cluster. See `base.InPlaceExecutor` for the verbs."""

    cluster: "RayCluster"
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
        """Whoever embeds it, or comes to embed it, gets Cancelled; its worker is killed."""
        self._cancelled.add(job)

    def embed(self, shard: Shard, job: str, facts: JobFacts) -> Iterator[Outcomes]:
        def is_cancelled() -> bool:
            return job in self._cancelled

        started, progress = time.perf_counter(), self.cluster.progress
        pool = self.cluster.pool(self.settings, is_cancelled)
        with pool.worker(is_cancelled) as worker:
            assert worker.loaded is not None
            facts.model = self.settings.model.id
            facts.dtype, facts.device = worker.loaded.dtype, worker.loaded.device
            facts.dimensions = worker.loaded.dimensions
            facts.timings["load_seconds"] = time.perf_counter() - started
            settings = share_of_calls(self.settings, pool.size)
            with contextlib.closing(worker.embed(settings, shard, is_cancelled)) as embedding:
                for outcomes in embedding:
                    if progress is not None:
                        progress(len(outcomes.records), int(outcomes.token_counts.sum()))
                    yield outcomes
            facts.timings.update(worker.timings)


def share_of_calls(settings: PipelineSettings, workers: int) -> PipelineSettings:
    """The settings for one of so many workers: they cannot ask each other, so each has an equal share of the cap."""
    cap = settings.calls_per_second
    return settings if cap is None else settings.model_copy(update={"calls_per_second": cap / workers})


def ray_settings(settings: PipelineSettings) -> RayExecutorSettings:
    """The executor's own settings."""
    assert isinstance(settings.executor, RayExecutorSettings), settings.executor.type
    return settings.executor
