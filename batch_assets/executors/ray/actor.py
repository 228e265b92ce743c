"""What runs on a worker of the cluster: the model, and the same way of a shard through it as in one process.

Ray makes an actor of `RayWorker`, so this file and all that it imports must be on every node.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace

from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.encoders.base import Encoder
from batch_assets.encoders.fingerprint import fingerprint
from batch_assets.errors import BatchAssetsError, ModelError
from batch_assets.settings.in_place import RayExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import Shard
from batch_assets.sharding.reading import read_shard
from batch_assets.worker.faults import describe
from batch_assets.worker.fetching import Fetching
from batch_assets.worker.pipeline import embed


@dataclass(frozen=True)
class Loaded:
    """A worker with the model in memory: what computes, where. `node` is Ray's own id."""

    dtype: str
    device: str
    dimensions: int
    node: str
    host: str
    pid: int


@dataclass(frozen=True)
class Ended:
    """A shard has no more outcomes; `timings` are the seconds of the worker's stages."""

    timings: dict[str, float]


class RayWorker:
    """One model and at most one shard at a time, whose outcomes are fetched one by one.

    They are made when they are fetched, but for what the worker's own threads make ahead: a
    driver that does not fetch holds everything up, and nothing piles up.
    """

    def __init__(self) -> None:
        self._encoder: Encoder | None = None
        self._outcomes: Iterator[Outcomes] = iter(())
        self._timings: dict[str, float] = {}

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

    def begin(self, settings: PipelineSettings, shard: Shard) -> None:
        """Take up a shard; its outcomes come from `fetch`."""
        assert self._encoder is not None, "a shard came before the model"
        executor = settings.executor
        assert isinstance(executor, RayExecutorSettings), executor.type
        self._timings = {}
        self._outcomes = embed(
            read_shard(settings, shard),
            self._encoder,
            batch_tokens=None if executor.batch_tokens == "auto" else executor.batch_tokens,
            batch_records=executor.batch_records,
            fetching=Fetching.of(settings),
            timings=self._timings,
        )

    def fetch(self) -> Outcomes | Ended:
        """The next outcomes of the shard, in order. Raises what reading or the model raises; the shard is over then."""
        with _understood_everywhere():
            outcomes = next(self._outcomes, None)
        return Ended(self._timings) if outcomes is None else _without_input(outcomes)


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


def _without_input(outcomes: Outcomes) -> Outcomes:
    """The same without what was embedded: nobody behind the model reads it, and images are large."""
    records = outcomes.records
    return replace(outcomes, records=replace(records, texts=[""] * len(records), images=None))
