"""What every executor is, and what a shard runner is: its work lives with the run that asks for it (GPU, Ray).

Those whose work goes on at a service (Bedrock, SageMaker, AWS Batch), are in `service_jobs.py`. The way from a
`type` in YAML to its class is `registry.py`. When a verb is called belongs to `control/` and `orchestration/`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from batch_assets.embeddings.schema import Task
from batch_assets.sharding.manifest import InputManifest
from batch_assets.sharding.plan import Shard
from batch_assets.storage import Storage
from batch_assets.worker.attempt import Attempt, ShardRun

Progress = Callable[[int, int], None]
"""Called with the (records, tokens) embedded since the last call, from any thread."""


class Cancelled(Exception):
    """Somebody cancelled the job while it ran, or before."""


class WorkerDied(Exception):
    """What computed the job is gone; another worker may take the shard up.

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
        """What only one process may compute on at a time: a device of this machine, a server's URL; None: nothing."""
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


class ShardRunner(Executor, Protocol):
    """Has our worker run on a shard and commit it, in this process or elsewhere, for as long as this run lives."""

    def run(self, attempt: Attempt, storage: Storage) -> ShardRun:
        """The shard's run, which goes on as it is iterated over (`worker/run_shard.py`); closing it ends it.

        `storage` is the output root, as this process reaches it. Raises WorkerDied where another attempt may be
        begun at once, somewhere else, Cancelled, and what `run_shard` raises.
        """
        ...

    def cancel(self, job: str) -> None:
        """Whoever runs it, or comes to run it, gets Cancelled, soon. One that has ended is left as it is.

        Nothing is to be done where all work is in `run`, and ends with whoever iterates over it.
        """
        ...


@runtime_checkable
class PaidRunner(Protocol):
    """A shard runner whose calls somebody takes money for."""

    def calls(self, records: int) -> int:
        """How many calls so many records take, each made once."""
        ...

    def expected_usd(self, tokens: int, records: int) -> float | None:
        """What records of so many tokens in all cost, about; None where no price is known."""
        ...

    def bound_usd(self, shard: Shard, manifest: InputManifest) -> float:
        """The most that a run of the shard costs, each call made once."""
        ...

    def spent_usd(self, job: str) -> float:
        """What the job's run has cost, as far as is known; it has ended, well or not, and is asked about once."""
        ...
