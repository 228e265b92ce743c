"""One transform job: what was asked, where it stands, and which faults will befall it.

How it moves from state to state is `jobs.py`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from batch_assets.rehearsal.faults import Scenario

TERMINAL = ("Completed", "Failed", "Stopped")
DESCRIBED = (
    "ModelName", "MaxConcurrentTransforms", "ModelClientConfig", "MaxPayloadInMB", "BatchStrategy", "Environment",
    "TransformInput", "TransformOutput", "DataCaptureConfig", "TransformResources", "DataProcessing",
    "ExperimentConfig",
)  # fmt: skip
DEFAULT_PAYLOAD_MB = 6
FAILED = "AlgorithmError: See job logs for more information"
REFUSED = "ClientError: See job logs for more information"
NO_CAPACITY = (
    "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML instance "
    "type."
)


@dataclass(frozen=True, slots=True)
class Fate:
    """What will befall a job, drawn when it is accepted. Times are virtual seconds."""

    starting: float
    running: float
    stopping: float
    no_capacity: bool
    fail: bool
    stop_race: bool

    @classmethod
    def draw(cls, scenario: Scenario, number: int) -> "Fate":
        chance = scenario.draw("transform", number)
        faults, timing = scenario.transform, scenario.transform.timing
        return cls(
            starting=chance.uniform(*timing.starting),
            running=chance.uniform(*timing.running),
            stopping=chance.uniform(*timing.stopping),
            no_capacity=chance.random() < faults.no_capacity,
            fail=chance.random() < faults.fail,
            stop_race=chance.random() < faults.stop_race,
        )


@dataclass(slots=True)
class TransformJob:
    """A job in one region. `request` is what CreateTransformJob was given."""

    arn: str
    region: str
    number: int  # in the order of creation: chance knows it by this, since names differ by deployment
    request: Mapping[str, Any]
    fate: Fate
    created: float
    modified: float
    status: str = "InProgress"
    reason: str | None = None
    started: float | None = None
    ended: float | None = None
    finishing: bool = False  # its outputs are being written
    problems: dict[str, str] = field(default_factory=dict[str, str])  # object → why it failed: the job's log

    @property
    def name(self) -> str:
        return self.request["TransformJobName"]

    @property
    def active(self) -> bool:
        return self.status not in TERMINAL

    @property
    def instance_type(self) -> str:
        return self.request["TransformResources"]["InstanceType"]

    @property
    def instances(self) -> int:
        return self.request["TransformResources"]["InstanceCount"]

    @property
    def max_payload(self) -> int | None:
        """Bytes in one call of the container; None: no limit."""
        megabytes = self.request.get("MaxPayloadInMB", DEFAULT_PAYLOAD_MB)
        return megabytes * 2**20 if megabytes else None

    def described(self) -> dict[str, Any]:
        """The fields of DescribeTransformJob."""
        return {
            "TransformJobName": self.name,
            "TransformJobArn": self.arn,
            "TransformJobStatus": self.status,
            "FailureReason": self.reason,
            "CreationTime": self.created,
            "TransformStartTime": self.started,
            "TransformEndTime": self.ended,
        } | {name: self.request.get(name) for name in DESCRIBED}

    def summary(self) -> dict[str, Any]:
        """The fields of a summary in ListTransformJobs."""
        return {
            "TransformJobName": self.name,
            "TransformJobArn": self.arn,
            "CreationTime": self.created,
            "TransformEndTime": self.ended,
            "LastModifiedTime": self.modified,
            "TransformJobStatus": self.status,
            "FailureReason": self.reason,
        }

    def as_dict(self) -> dict[str, Any]:
        """All that the rehearsal knows of the job, for a person and for tests."""
        return self.described() | {
            "service": "sagemaker",
            "fate": asdict(self.fate),
            "region": self.region,
            "problems": self.problems,
        }
