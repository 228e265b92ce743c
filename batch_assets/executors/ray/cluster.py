"""A Ray cluster as this process has it: joined once, its workers kept from shard to shard and run to run."""

import atexit
import threading
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from batch_assets.encoders.fingerprint import fingerprint
from batch_assets.errors import ConfigurationError
from batch_assets.executors.base import Progress
from batch_assets.executors.gpu import GpuMachine
from batch_assets.executors.ray.connection import AUTO, Connection, import_ray, join, leave
from batch_assets.executors.ray.executor import RayExecutor, ray_settings
from batch_assets.executors.ray.pool import WorkerPool
from batch_assets.executors.ray.room import Room, count_workers, need_of
from batch_assets.settings.in_place import GpuExecutorSettings, RayExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings


@dataclass
class RayCluster:
    """The host of executors of type `ray`. `address` takes the place of a pipeline's `auto`.

    All of a process share one connection and its workers: Dagster makes its resources anew for every run.
    """

    address: str = AUTO
    progress: Progress | None = None
    _machine: GpuMachine = field(default_factory=GpuMachine, repr=False)

    def executor(self, settings: PipelineSettings) -> RayExecutor:
        """The executor of one pipeline on this cluster; nothing is contacted yet."""
        return RayExecutor(self, settings)

    def pool(self, settings: PipelineSettings) -> WorkerPool:
        """The workers of the pipeline's model, not started yet; joins or starts Ray if that has not been done.

        Raises ConfigurationError where Ray is not to be had or has too little room.
        """
        executor = ray_settings(settings)
        asked = self.address if executor.address == AUTO else executor.address
        with _shared.lock:
            return _shared.pool(settings, executor, asked)

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


@dataclass
class _Shared:
    """What the process has: its connection and the pools on it."""

    connection: Connection | None = None
    pools: dict[tuple[str, object, object, object], WorkerPool] = field(default_factory=dict)
    registered: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    def pool(self, settings: PipelineSettings, executor: RayExecutorSettings, asked: str) -> WorkerPool:
        connection, ray = self._connect(asked), import_ray()
        key = (fingerprint(settings), executor.cpus_per_worker, executor.gpus_per_worker, executor.workers)
        known = self.pools.get(key)
        if known is not None and not (executor.workers == "auto" and known.is_idle()):
            return known  # also where nodes have been lost since: it goes on with the others
        room = Room.of(ray.nodes())
        if known is not None:
            known.size = room.fits(known.need) or known.size
            return known
        need = need_of(executor, room)
        size = count_workers(executor, room, need, connection.address)
        # Workers of another model would keep their room for themselves.
        for other in [other for other, pool in self.pools.items() if pool.is_idle()]:
            self.pools.pop(other).close()
        self.pools[key] = WorkerPool(settings, key[0], need, size)
        return self.pools[key]

    def _connect(self, asked: str) -> Connection:
        ray = import_ray()
        if self.connection is not None and not ray.is_initialized():
            self.connection = None  # somebody has shut it down
            self.pools.clear()
        if self.connection is None and ray.is_initialized() and asked == AUTO:
            # dagster-ray's resource or the caller's own code has joined it.
            self.connection = Connection(AUTO, "the Ray that this process has joined", ours=False)
        if self.connection is not None and asked not in (AUTO, self.connection.asked):
            if not self.connection.ours or not all(pool.is_idle() for pool in self.pools.values()):
                raise ConfigurationError(
                    f"executor.address: {asked} cannot be joined, since this process works with "
                    f"{self.connection.address}; run it in a process of its own"
                )
            self.close()
        if self.connection is None:
            self.connection = join(asked)
            if not self.registered:
                self.registered = True
                atexit.register(self.close)
        return self.connection

    def close(self) -> None:
        for pool in self.pools.values():
            pool.close()
        self.pools.clear()
        if self.connection is not None and self.connection.ours:
            leave()
        self.connection = None


_shared = _Shared()


def _on_this_machine(settings: PipelineSettings) -> PipelineSettings:
    """The pipeline as the CPU of this machine computes it: one query needs no cluster."""
    return settings.model_copy(update={"executor": GpuExecutorSettings(device="cpu")})
