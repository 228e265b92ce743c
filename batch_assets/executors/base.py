"""What an executor is: five verbs, and limits that are data.

One implementation per file beside this one; the way from a `type` in YAML to its class is
`registry.py`. When a verb is called belongs to `control/` and `orchestration/`.

An executor is either in place (the run that calls `collect` is the work: GPU, Ray, a
gateway) or deferred (`submit` starts work at a service, `collect` fetches it later: Bedrock,
SageMaker, AWS Batch).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.embeddings.schema import Task
from batch_assets.executors.jobs import JobDescription
from batch_assets.sharding.plan import Shard

Progress = Callable[[int, int], None]
"""Called with the (records, tokens) embedded since the last call, from any thread."""


class Cancelled(Exception):
    """Somebody cancelled the job while its outcomes were collected, or before."""


class WorkerDied(Exception):
    """What computed the job is gone, and its outcomes with it; another worker may take the job up.

    `machine_lost`: it went down with its machine or network, which says nothing about the job.
    Otherwise the job itself may be what kills its workers.
    """

    def __init__(self, text: str, *, machine_lost: bool = False) -> None:
        super().__init__(text)
        self.machine_lost = machine_lost


class JobState(StrEnum):
    """What a service says of a job; in-place jobs are READY until their run collects them."""

    READY = "ready"
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


@dataclass(frozen=True)
class PreparedJob:
    """One attempt at a shard, its request files rendered (an executor in place needs none).

    `attempt` tells the attempts at a shard apart; for a deferred executor it is the fence of the
    claim under which the request files were rendered, and `description` says what is in them.
    """

    shard: Shard
    attempt: int
    description: JobDescription | None = None

    @property
    def described(self) -> JobDescription:
        """The description that every deferred job has, since it is rendered before anything else."""
        assert self.description is not None, f"shard {self.shard.key}: its job was not rendered"
        return self.description


@dataclass(frozen=True)
class JobHandle:
    """A submitted job. `job_id` finds it again at the service, `submission_id` what it was submitted with."""

    prepared: PreparedJob
    job_id: str
    submission_id: str = ""


@dataclass(frozen=True)
class JobStatus:
    """The truth about one job, as asked for."""

    handle: JobHandle
    state: JobState
    message: str = ""


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

    def prepare(self, shard: Shard, attempt: int) -> PreparedJob:
        """Render and upload what the service needs. Repeatable."""
        ...

    def submit(self, jobs: Sequence[PreparedJob], token: str) -> list[JobHandle]:
        """Start the jobs in one submission. The same token never starts them twice."""
        ...

    def poll(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
        """Ask the service for the truth, in bulk."""
        ...

    def cancel(self, handle: JobHandle) -> None:
        """Stop a job; one that has ended is left as it is. Whoever collects it in place gets Cancelled, soon."""
        ...

    def collect(self, handle: JobHandle, facts: JobFacts) -> Iterator[Outcomes]:
        """Every record of the shard exactly once, in source order; fills `facts` as it learns them.

        Raises WorkerDied where another attempt may be begun at once, somewhere else.
        """
        ...
