"""What an executor at a service is: slots, names, events, and what a service answers.

Work is started at a service and fetched later, so between the two somebody must ask how it
goes. Who asks, and what follows from it, is in `control/`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard, cast

from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.job_rows import JobRows
from batch_assets.errors import BatchAssetsError
from batch_assets.executors.base import Executor, JobState
from batch_assets.executors.jobs import JobDescription, JobKey
from batch_assets.sharding.plan import Shard
from batch_assets.storage import Storage

ENDED = frozenset({JobState.SUCCEEDED, JobState.PARTIAL, JobState.FAILED, JobState.EXPIRED, JobState.STOPPED})


class SlotsFull(Exception):
    """The service takes no more jobs now: its quota is used up, or it asks to slow down."""


class NotAsked(SlotsFull):
    """The service was not asked for a job: something that is needed before had no answer. It wishes for no pause."""


class Unanswered(Exception):
    """It is not known whether the service has taken the job: no answer, or an error of its own."""


class NameTaken(Exception):
    """The service has a job of that name, and it was asked for something else."""


class UnexpectedOutput(BatchAssetsError):
    """What a job wrote is not what the pipeline asked for, so the next job's would not be either.

    Nothing more is started until a person has said that it is mended.
    """


class ResultsNotReady(Exception):
    """The job has ended and its results are not all to be seen yet."""


@dataclass(frozen=True)
class ServiceJob:
    """A job as the service tells of it. Times are unix seconds; between `began_at` and `ended_at` it computes.

    `records` counts what it has processed, None where it does not say; `results` is where it writes.
    `children` counts those that have ended, of a job that has children. `asked` is what decides what
    it computes, and from what; None where this answer does not tell.
    """

    id: str
    name: str
    model: str
    state: JobState
    message: str = ""
    submitted_at: float = 0.0
    ended_at: float | None = None
    records: int | None = None
    results: str = ""
    began_at: float | None = None
    children: int = 0
    asked: Mapping[str, Any] | None = None

    @property
    def active(self) -> bool:
        """Whether it takes a slot."""
        return self.state not in ENDED


@dataclass(frozen=True)
class Event:
    """A wake-up: something has happened to the job `job_id`. `receipt` deletes the message.

    `under_way`: it tells of a job that goes on, so nobody need be asked about it. `seen` is how
    often it has come.
    """

    job_id: str | None
    receipt: str
    under_way: bool = False
    seen: int = 1


@dataclass(frozen=True)
class Order:
    """What a job is to hold: `ordinals` None are all the shard's valid records.

    For the others, see `JobDescription`.
    """

    fence: int
    attempt: int
    ordinals: Sequence[int] | None = None
    narrowed: Mapping[int, int] | None = None
    earlier: Sequence[int] = ()
    keep_fence: int | None = None
    outdated_fence: int = -1
    failing_since: float | None = None


class ServiceJobs(Executor, Protocol):
    """An executor whose work goes on at a service.

    Either results are fetched when a job has ended (`BatchService`), or the service's workers
    commit their shards themselves (`WorkerService`, whose `commits` is True).
    """

    commits: bool
    deployment: str | None
    """The random id of the output root, by which its jobs are named (`control/ownership.py`); older roots have none."""

    @property
    def quota_group(self) -> str:
        """Jobs of one group share slots: account, region and model."""
        ...

    def slots(self) -> int:
        """Submissions of the group that may be active at once."""
        ...

    def render(self, shard: Shard, order: Order) -> JobDescription:
        """Render and upload the requests of a job and write its description. Repeatable under another fence."""
        ...

    def submit(self, jobs: Sequence[JobDescription], token: str, name: str) -> str:
        """Start the jobs in one submission; its id at the service. The same token and name never start them twice.

        Raises SlotsFull, Unanswered, SubmissionRefused, and NameTaken with nothing started.
        """
        ...

    @property
    def name_prefixes(self) -> Sequence[str]:
        """How the names of all this pipeline's jobs begin at the service: of new ones, then of earlier ones."""
        ...

    def submission_name(self, jobs: Sequence[JobKey], prefix: str | None = None) -> tuple[str, str]:
        """(token, name) of the submission of these jobs: always the same for the same jobs."""
        ...

    def find(self, name: str, jobs: Sequence[JobDescription]) -> ServiceJob | None:
        """The submission of these jobs by its name, or None where there is none. Raises Unanswered, NameTaken."""
        ...

    def is_ours(self, job: ServiceJob, jobs: Sequence[JobDescription]) -> bool:
        """Whether the job was asked what a submission of these jobs, under its name, asks. Raises Unanswered."""
        ...

    def own_jobs(self) -> list[ServiceJob]:
        """Every job whose name begins as this pipeline's do."""
        ...

    def look_up(self, job_id: str) -> ServiceJob | None:
        """The truth about one job; None where the service does not know it."""
        ...

    def stop(self, job_id: str) -> None:
        """Stop a job; one that has ended is left as it is. Raises Unanswered."""
        ...

    def events(self, most: int) -> list[Event]:
        """Wake-ups that wait in the queue; none where there is no queue."""
        ...

    def delete_events(self, events: Sequence[Event]) -> None:
        """The ledger has moved: these need not come again."""
        ...


class BatchService(ServiceJobs, Protocol):
    """An executor at a service whose jobs write results, which are fetched.

    `narrowing` is the code of records that are to be tried again otherwise: a shorter text, a
    smaller file. How often that was done is in `Order.narrowed`.
    """

    narrowing: str

    @property
    def staging(self) -> Storage:
        """Where request and result files lie; may be the output root."""
        ...

    def list_jobs(self, since: float | None) -> list[ServiceJob]:
        """Every job in the account, of any model and state, submitted after `since` (unix seconds; None: ever)."""
        ...

    def is_same_model(self, job: ServiceJob) -> bool:
        """Whether the job takes slots of the quota group."""
        ...

    def cost(self, input_tokens: int, output_tokens: int, *, on_demand: bool = False) -> float | None:
        """USD for so many tokens; None where no price is known."""
        ...

    def called_singly(self, shards: Sequence[int]) -> int:
        """Of shards with so many records each, the records that are too few for a job and get a call each."""
        ...

    def check_sizes(self, shards: Sequence[int]) -> None:
        """Raise ConfigurationError where shards with so many records each cannot be embedded."""
        ...

    def token_bounds(self) -> tuple[int | None, int]:
        """The most tokens that the model takes of a record (None: no limit), and the most that it answers."""
        ...

    def fetch(
        self,
        job: JobDescription,
        service_job: ServiceJob | None,
        rows: JobRows,
        facts: JobFacts,
        *,
        final: bool,
    ) -> None:
        """Read the results of a job that has ended into `rows`.

        Every record asked for is settled by it or is to be tried again. `facts` gets tokens and
        cost. Raises ResultsNotReady where more may still come, unless this is the `final` look, and
        UnexpectedOutput.
        """
        ...

    def answer(self, job: JobDescription, rows: JobRows, facts: JobFacts, pace: "Pace") -> None:
        """Do an on_demand job here and now, record by record."""
        ...


class WorkerService(ServiceJobs, Protocol):
    """An executor at a service whose workers embed a shard each, and commit it under the job's fence.

    A submission carries up to `array_jobs` jobs, its children, in the order of their shards.
    """

    array_jobs: int

    @property
    def alive(self) -> int | None:
        """Children of the pipeline that may be alive at once; None: any number."""
        ...

    def describe(self, job_ids: Sequence[str]) -> list[ServiceJob]:
        """The truth about these submissions, those left out that the service does not know."""
        ...

    def children(self, job_id: str) -> Mapping[int, JobState]:
        """Which children have ended, and how (SUCCEEDED, FAILED), by their place in the submission."""
        ...

    def end_others(self, name: str, job_id: str) -> None:
        """End every job of that name but this one. Raises Unanswered."""
        ...

    def worker(self, job_id: str, place: int, jobs: int) -> str:
        """What the service calls one worker of a submission of `jobs`."""
        ...

    def ended(self, job: JobDescription, worker: str | None) -> tuple[str, float]:
        """Why a worker ended without a commit, and after how many seconds."""
        ...

    def price(self, seconds: float) -> float | None:
        """USD for a worker's time; None where no price is known."""
        ...


class Pace(Protocol):
    """Waits until so many calls may be made: the quota group's pipelines together make so many a minute at most."""

    def __call__(self, calls: int, per_minute: int) -> None: ...


def has_results(executor: Executor) -> TypeGuard[BatchService]:
    """Whether jobs of this executor write results, which are fetched."""
    return not executor.in_place and not cast("ServiceJobs", executor).commits
