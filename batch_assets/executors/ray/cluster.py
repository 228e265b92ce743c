"""A Ray cluster as this process has it: joined once, its workers kept from shard to shard and run to run."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from batch_assets.errors import ClusterLost
from batch_assets.executors.base import Cancelled, Progress
from batch_assets.executors.gpu import GpuMachine
from batch_assets.executors.ray.connection import AUTO
from batch_assets.executors.ray.executor import RayExecutor, ray_settings
from batch_assets.executors.ray.pool import WorkerPool
from batch_assets.executors.ray.pulse import GO_ON
from batch_assets.executors.ray.shared import Away, Shared
from batch_assets.retry_policy import CLUSTER_PAUSE_SECONDS, CLUSTER_RETURN_SECONDS
from batch_assets.settings.in_place import GpuExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings

_shared = Shared()


@dataclass
class RayCluster:
    """The host of executors of type `ray`. `address` takes the place of a pipeline's `auto`.

    All of a process share one connection and its workers: Dagster makes its resources anew for every run.
    """

    address: str = AUTO
    progress: Progress | None = None
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    _machine: GpuMachine = field(default_factory=GpuMachine, repr=False)

    def executor(self, settings: PipelineSettings) -> RayExecutor:
        """The executor of one pipeline on this cluster; nothing is contacted yet."""
        return RayExecutor(self, settings)

    def pool(
        self, settings: PipelineSettings, is_cancelled: Callable[[], bool] = lambda: False
    ) -> WorkerPool:
        """The workers of the pipeline's model, not started yet; joins or starts Ray if that has not been done.

        One that is gone is started anew, or joined again as soon as it answers. Raises ConfigurationError where
        Ray is not to be had or has too little room, ClusterLost where it is gone for good, Cancelled.
        """
        import tenacity

        executor = ray_settings(settings)
        asked = self.address if executor.address == AUTO else executor.address

        def have() -> WorkerPool:
            with _shared.lock:
                return _shared.pool(settings, executor, asked)

        began = self.clock()
        waiting = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Away),
            wait=tenacity.wait_fixed(CLUSTER_PAUSE_SECONDS),
            stop=lambda _: is_cancelled() or self.clock() - began >= CLUSTER_RETURN_SECONDS,
            sleep=self.sleep,
            reraise=True,
        )
        try:
            return waiting(have)
        except Away as error:
            if is_cancelled():
                raise Cancelled from None
            with _shared.lock:
                _shared.forget()
            raise ClusterLost(
                f"Ray: {error}, and has not come back in {CLUSTER_RETURN_SECONDS / 60:.0f} minutes; nothing that is "
                f"committed is lost{GO_ON}"
            ) from error

    def embed_query(self, settings: PipelineSettings, text: str) -> npt.NDArray[np.float32]:
        """The vector (dimensions,) of a text to be looked for, by this machine's CPU. Raises ModelError."""
        return self._machine.embed_query(_on_this_machine(settings), text)

    def embed_query_image(self, settings: PipelineSettings, content: bytes) -> npt.NDArray[np.float32]:
        """The vector (dimensions,) of an image to be looked for, by this machine's CPU: a whole file."""
        return self._machine.embed_query_image(_on_this_machine(settings), content)

    def close(self) -> None:
        """End the workers, and leave the cluster; one that was started here ends. What wants it again joins again."""
        with _shared.lock:
            _shared.close()


def _on_this_machine(settings: PipelineSettings) -> PipelineSettings:
    """The pipeline as the CPU of this machine computes it: one query needs no cluster."""
    return settings.model_copy(update={"executor": GpuExecutorSettings(device="cpu")})
