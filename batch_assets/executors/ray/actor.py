"""What runs on a worker of the cluster: the model, and shards from their records to their commits.

Ray makes an actor of `RayWorker`, so this file and all that it imports must be on every node.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from batch_assets.embeddings.marker import ShardMarker
from batch_assets.encoders.base import Encoder
from batch_assets.encoders.fingerprint import fingerprint
from batch_assets.errors import BatchAssetsError, ModelError
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.storage import open_storage
from batch_assets.storage.probes import answer_probe
from batch_assets.worker.attempt import Attempt, ShardRun, Step
from batch_assets.worker.faults import describe
from batch_assets.worker.run_shard import embedding, run_shard


@dataclass(frozen=True)
class Loaded:
    """A worker with the model in memory: what computes, where. `node` is Ray's own id."""

    dtype: str
    device: str
    dimensions: int
    node: str
    host: str
    pid: int


class RayWorker:
    """One model and at most one shard at a time, which goes on a step whenever the run asks for one.

    Records, vectors and files stay here; what a run is told fits into the answer to its call. A run that does not
    ask holds everything up, but for what the worker's own threads make ahead.
    """

    def __init__(self) -> None:
        self._encoder: Encoder | None = None
        self._run: ShardRun | None = None

    def here(self) -> None:
        """Answer as soon as the worker has its place in the cluster."""

    def load(self, settings: PipelineSettings, device: str, cores: int, expected: str) -> Loaded:
        """Load the pipeline's model, which must have the fingerprint that the driver's has. Raises ModelError."""
        import ray

        from batch_assets.encoders.registry import load_encoder

        found = fingerprint(settings)
        if found != expected:
            raise ModelError(
                f"model {settings.model.id!r} on {socket.gethostname()} is not the one that the run has: its "
                f"fingerprint is {found}, not {expected}; put the same files and the same version of batch-assets "
                "on all nodes"
            )
        with _understood_everywhere():
            self._encoder = load_encoder(settings, device=device, cores=cores)
        return Loaded(
            dtype=self._encoder.dtype,
            device=self._encoder.device,
            dimensions=self._encoder.dimensions,
            node=ray.get_runtime_context().get_node_id(),
            host=socket.gethostname(),
            pid=os.getpid(),
        )

    def reaches(self, root: str, probe: str) -> bool:
        """Whether this worker sees the probe under the output root, and can change it. Raises StorageError."""
        return answer_probe(open_storage(root), probe)

    def begin(self, attempt: Attempt, root: str) -> None:
        """Take up a shard; `step` brings it on. `root` is the output root, as the run reaches it."""
        encoder = self._encoder
        assert encoder is not None, "a shard came before the model"
        self._run = run_shard(attempt, open_storage(root), embedding(attempt.settings, lambda: encoder))

    def step(self) -> Step | ShardMarker:
        """The next step of the shard, or the marker that stands in the end. Raises what `run_shard` raises."""
        assert self._run is not None, "a step came before the shard"
        with _understood_everywhere():
            try:
                return next(self._run)
            except StopIteration as ended:
                return ended.value

    def end(self) -> None:
        """Give the shard up, if there is one, and remove what was written of it."""
        if self._run is not None:
            self._run.close()


@contextlib.contextmanager
def _understood_everywhere() -> Iterator[None]:
    """Put errors of classes that the driver may not have, such as a model's own, into one that it has."""
    try:
        yield
    except BatchAssetsError:
        raise
    except Exception as error:
        if type(error).__module__ == "builtins":
            raise
        raise RuntimeError(describe(error)) from None
