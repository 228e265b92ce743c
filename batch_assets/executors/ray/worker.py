"""One worker as the run has it: it is given a shard, asked to go on with it, and killed.

What it does there is in `actor.py`, what its death means in `deaths.py`.
"""

import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from batch_assets import paths
from batch_assets.embeddings.marker import ShardMarker
from batch_assets.errors import ConfigurationError
from batch_assets.executors.base import Cancelled, WorkerDied
from batch_assets.executors.ray.actor import Loaded
from batch_assets.executors.ray.deaths import deaths_explained
from batch_assets.executors.ray.pulse import Pulse
from batch_assets.retry_policy import END_SECONDS
from batch_assets.storage import Storage
from batch_assets.storage.probes import delete_old_probes, delete_probes, probe_content
from batch_assets.worker.attempt import Attempt, ShardRun

LOOK_SECONDS = 0.2


@dataclass(eq=False)
class Worker:
    """One worker as the run has it: Ray's handle of the actor, and what is known of it once it has loaded."""

    actor: Any
    placing: Any
    loading: Any
    pulse: Pulse
    loaded: Loaded | None = None
    is_at_work: bool = False
    _reached: set[str] = field(default_factory=set)

    def run(self, attempt: Attempt, storage: Storage, is_cancelled: Callable[[], bool]) -> ShardRun:
        """The shard's run on this worker. Raises what the worker raises, WorkerDied, and Cancelled.

        `storage` is the output root, as this process reaches it; see `_demand_reach`.
        """
        try:
            self._demand_reach(storage, is_cancelled)
            self.is_at_work = True
            self._get(lambda: self.actor.begin.remote(attempt, storage.uri), is_cancelled)
        except WorkerDied as error:
            error.machine_lost = True  # it was dead before: nothing of the shard had begun
            raise
        try:
            while not isinstance(step := self._get(self.actor.step.remote, is_cancelled), ShardMarker):
                yield step
        except (GeneratorExit, Cancelled):
            self._end()
            raise
        self.is_at_work = False
        return step

    def _end(self) -> None:
        """Have the worker give its shard up and remove what it has written; if that takes long, it is to be killed."""
        import ray

        if self.pulse.gone is not None:
            return
        with contextlib.suppress(Exception):  # it may be dead
            if ray.wait([self.actor.end.remote()], timeout=END_SECONDS)[0]:
                self.is_at_work = False

    def _demand_reach(self, storage: Storage, is_cancelled: Callable[[], bool]) -> None:
        """Have the worker prove, once for each output root, that what it writes there is what this process reads.

        Raises ConfigurationError where it is another place for the worker, StorageError, WorkerDied and Cancelled.
        """
        assert self.loaded is not None
        if storage.uri in self._reached:
            return
        probe = paths.probe(secrets.token_hex(8))
        storage.create(probe, probe_content(probe, 1))
        try:
            reached = self._get(lambda: self.actor.reaches.remote(storage.uri, probe), is_cancelled)
            seen = storage.read_versioned(probe) if reached else None
            delete_old_probes(storage, probe)
        finally:
            delete_probes(storage, [probe])
        if seen is None or seen[0] != probe_content(probe, 2):
            raise ConfigurationError(
                f"output.root: {storage.uri} is another place for a worker on {self.loaded.host} than for this "
                "process: a file that the one writes the other does not see. Workers write and commit their shards: "
                "name a place that all nodes reach, such as s3://bucket/prefix/ or a folder on a shared disk"
            )
        self._reached.add(storage.uri)

    def _get(self, ask: Callable[[], Any], is_cancelled: Callable[[], bool]) -> Any:
        """The answer to a call of the worker."""
        import ray

        with deaths_explained(self.pulse, self.loaded):
            reference = ask()
            while not ray.wait([reference], timeout=LOOK_SECONDS)[0]:
                if is_cancelled():
                    raise Cancelled
                self.pulse.demand()
            return ray.get(reference)

    def is_placed(self) -> bool:
        """Whether the cluster has given it a place. Raises WorkerDied."""
        import ray

        with deaths_explained(self.pulse, self.loaded):
            return bool(ray.wait([self.placing], timeout=0)[0])

    def kill(self) -> None:
        """End the process, whatever it is at: a batch cannot be interrupted otherwise."""
        import ray

        if self.pulse.gone is not None:
            return  # there is nobody to ask, and Ray would wait for an answer
        with contextlib.suppress(Exception):  # it, its node or all of Ray may be gone
            ray.kill(self.actor, no_restart=True)
