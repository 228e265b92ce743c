"""One worker as the driver has it: it is given a shard, asked for its outcomes, and killed.

What it does there is in `actor.py`, what its death means in `deaths.py`.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.executors.base import Cancelled, WorkerDied
from batch_assets.executors.ray.actor import Ended, Loaded
from batch_assets.executors.ray.deaths import deaths_explained
from batch_assets.executors.ray.pulse import Pulse
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import Shard

LOOK_SECONDS = 0.2
FETCHES_AHEAD = 2


@dataclass(eq=False)
class Worker:
    """One worker as the driver has it: Ray's handle of the actor, and what is known of it once it has loaded."""

    actor: Any
    placing: Any
    loading: Any
    pulse: Pulse
    loaded: Loaded | None = None
    timings: dict[str, float] = field(default_factory=dict)

    def embed(
        self, settings: PipelineSettings, shard: Shard, is_cancelled: Callable[[], bool]
    ) -> Generator[Outcomes, None, None]:
        """The shard's outcomes; behind the last, `timings` are the shard's.

        Raises what the worker raises, WorkerDied, and Cancelled.
        """
        try:
            with deaths_explained(self.pulse, self.loaded):
                begun = self.actor.begin.remote(settings, shard)
                waiting = deque(self.actor.fetch.remote() for _ in range(FETCHES_AHEAD))
            self._get(begun, is_cancelled)
        except WorkerDied as error:
            error.machine_lost = True  # it was dead before: nothing of the shard had begun
            raise
        while not isinstance(found := self._get(waiting.popleft(), is_cancelled), Ended):
            with deaths_explained(self.pulse, self.loaded):
                waiting.append(self.actor.fetch.remote())
            yield _out_of_the_store(found)
            del found
        self.timings = found.timings

    def _get(self, reference: Any, is_cancelled: Callable[[], bool]) -> Any:
        import ray

        with deaths_explained(self.pulse, self.loaded):
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


def _out_of_the_store(outcomes: Outcomes) -> Outcomes:
    """The vectors copied: the writer keeps them for a while, and would keep the whole object in Ray's store."""
    outcomes.vectors = np.array(outcomes.vectors)
    return outcomes
