"""One batch inference job: what was asked, where it stands, and which faults will befall it.

How it moves from state to state is `jobs.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.models import base_model

TERMINAL = ("Completed", "PartiallyCompleted", "Failed", "Stopped", "Expired")


class JobInvalid(Exception):
    """The job fails in validation, for this reason."""


@dataclass(slots=True)
class Counts:
    """Records: of the input, with a line in the output, and what those lines say."""

    total: int = 0
    processed: int = 0
    success: int = 0
    error: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Results:
    """What became of a job's records, and its files: each appears so many virtual seconds after the job's end."""

    counts: Counts
    uploads: Sequence[tuple[float, Callable[[], object]]]


@dataclass(frozen=True, slots=True)
class Fate:
    """What will befall a job, drawn when it is accepted. Times are virtual seconds."""

    submitted: float
    validating: float
    scheduled: float
    running: float
    stopping: float
    fail_validation: bool
    fail_running: bool
    expire: bool
    partial: float | None  # the share of records that time suffices for
    all_records_fail: bool
    stop_race: bool

    @classmethod
    def draw(cls, scenario: Scenario, name: str) -> "Fate":
        chance = scenario.draw("job", name)
        timing, jobs = scenario.timing, scenario.jobs
        return cls(
            submitted=chance.uniform(*timing.submitted),
            validating=chance.uniform(*timing.validating),
            scheduled=chance.uniform(*timing.scheduled),
            running=chance.uniform(*timing.running),
            stopping=chance.uniform(*timing.stopping),
            fail_validation=chance.random() < jobs.fail_validation,
            fail_running=chance.random() < jobs.fail_running,
            expire=chance.random() < jobs.expire,
            partial=chance.uniform(0.1, 0.9) if chance.random() < jobs.partial else None,
            all_records_fail=chance.random() < jobs.all_records_fail,
            stop_race=chance.random() < jobs.stop_race,
        )


@dataclass(slots=True)
class Job:
    """A job in one region. `request` is what CreateModelInvocationJob was given."""

    id: str
    arn: str
    region: str
    request: Mapping[str, Any]
    fate: Fate
    submitted: float
    expires: float
    foreign: bool = False  # another tenant's: it reads and writes nothing
    status: str = "Submitted"
    message: str | None = None
    modified: float = 0.0
    began: float | None = None
    ended: float | None = None
    finishing: bool = False  # its results are being written
    counts: Counts = field(default_factory=Counts)

    @property
    def name(self) -> str:
        return self.request["jobName"]

    @property
    def model(self) -> str:
        return base_model(self.request["modelId"])

    @property
    def active(self) -> bool:
        return self.status not in TERMINAL

    @property
    def invocation_type(self) -> str:
        return self.request.get("modelInvocationType") or "InvokeModel"

    @property
    def input(self) -> Mapping[str, Any]:
        return self.request["inputDataConfig"]["s3InputDataConfig"]

    @property
    def output(self) -> Mapping[str, Any]:
        return self.request["outputDataConfig"]["s3OutputDataConfig"]

    def shown_counts(self, now: float) -> dict[str, int]:
        """As the service tells them: 0 until the job runs, then growing, exact at the end."""
        counts = self.counts
        if self.began is None:
            return _counts(0, 0, 0, 0)
        if self.active:
            share = min(1.0, (now - self.began) / max(self.fate.running, 1e-9))
            processed = int(counts.total * share)
            return _counts(counts.total, processed, processed, 0)
        return _counts(counts.total, counts.processed, counts.success, counts.error)

    def described(self, now: float) -> dict[str, Any]:
        """The fields of GetModelInvocationJob, and of a summary in a list."""
        given = self.request
        return {
            "jobArn": self.arn,
            "jobName": self.name,
            "modelId": given["modelId"],
            "clientRequestToken": given.get("clientRequestToken"),
            "roleArn": given["roleArn"],
            "status": self.status,
            "message": self.message,
            "submitTime": self.submitted,
            "lastModifiedTime": self.modified,
            "endTime": self.ended,
            "inputDataConfig": given["inputDataConfig"],
            "outputDataConfig": given["outputDataConfig"],
            "vpcConfig": given.get("vpcConfig"),
            "timeoutDurationInHours": given.get("timeoutDurationInHours", 24),
            "jobExpirationTime": self.expires,
            "modelInvocationType": self.invocation_type,
            **self.shown_counts(now),
        }

    def as_dict(self, now: float) -> dict[str, Any]:
        """All that the rehearsal knows of the job, for a person and for tests."""
        return self.described(now) | {
            "fate": asdict(self.fate),
            "foreign": self.foreign,
            "region": self.region,
        }


def _counts(total: int, processed: int, success: int, error: int) -> dict[str, int]:
    return {
        "totalRecordCount": total,
        "processedRecordCount": processed,
        "successRecordCount": success,
        "errorRecordCount": error,
    }
