"""What every executor is, and what one in place is: the run that calls `embed` is the work (GPU, Ray).

Those whose work goes on at a service (Bedrock, SageMaker, AWS Batch), are in `service_jobs.py`. The way from a
`type` in YAML to its class is `registry.py`. When a verb is called belongs to `control/` and `orchestration/`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.embeddings.schema import Task
from batch_assets.sharding.plan import Shard

Progress = Callable[[int, int], None]
"""Called with the (records, tokens) embedded since the last call, from any thread."""


class Cancelled(Exception):
    """Somebody cancelled the job while it was embedded, or before."""


class WorkerDied(Exception):
    """What computed the job is gone, and its outcomes with it; another worker may take the job up.

    `machine_lost`: it went down with its machine or network, which says nothing about the job.
    Otherwise the job itself may be what kills its workers.
    """

    def __init__(self, text: str, *, machine_lost: bool = False) -> None:
        super().__init__(text)
        self.machine_lost = machine_lost


class JobState(StrEnum):
    """What a service says of a job."""

    SUBMITTED = "submitted"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    EXPIRED = "expired"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Limits:
    """What an executor takes at once; None is no limit."""

    jobs: int | None = None
    records: int | None = None
    bytes: int | None = None
    min_records: int = 0


class Executor(Protocol):
    """Does the computing for one pipeline."""

    kind: str
    in_place: bool

    @property
    def limits(self) -> Limits:
        """What it takes at once; may have to be asked for."""
        ...

    @property
    def task(self) -> Task:
        """Whether records become vectors or answers. Raises ConfigurationError where that cannot be."""
        ...

    def exclusive_device(self) -> str | None:
        """The device of this machine that only one process may compute on at a time; None: there is none."""
        ...

    def at_once(self) -> int:
        """How many jobs are collected at a time, each in a thread of its own: in place, as many as it computes.

        Raises ConfigurationError where it has no room for what the pipeline asks for.
        """
        ...

    def fingerprint(self) -> str:
        """Digest of all that decides a vector (hex). Raises ModelError where the model is not to be had."""
        ...

    def check(self) -> None:
        """Raise ModelError or ConfigurationError where no job could succeed; may take as long as loading the model."""
        ...


class InPlaceExecutor(Executor, Protocol):
    """Computes where it is called, or has workers of its own compute. `job` names one attempt at a shard."""

    def embed(self, shard: Shard, job: str, facts: JobFacts) -> Iterator[Outcomes]:
        """Every record of the shard exactly once, in source order; fills `facts` as it learns them.

        Raises WorkerDied where another attempt may be begun at once, somewhere else, and Cancelled.
        """
        ...

    def cancel(self, job: str) -> None:
        """Whoever embeds it, or comes to embed it, gets Cancelled, soon. One that has ended is left as it is.

        Nothing is to be done where all work is in `embed`, and ends with whoever iterates over it.
        """
        ...
