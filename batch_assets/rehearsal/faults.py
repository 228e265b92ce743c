"""Which faults befall a rehearsal: one scenario, seeded, from a YAML file or by name.

Only the numbers belong here; what a fault does stands where it strikes. `calm` is the
default: AWS on a good day. `stormy` has every fault that ends well by itself. A file says
what differs from calm, for instance:

    seed: 7
    quotas: {concurrent_jobs: 8, min_records: 10, when_full: reject}
    timing: {running: [600, 7200]}                  # virtual seconds, drawn per job
    calls: {throttled: 0.1, lost_responses: 0.1}    # chances per call
    jobs: {partial: 0.1, expire: 0.05}              # chances per job
    records: {throttled: 0.01, refused: 0.001}      # chances per record
    output: {late: 0.2, doubled_lines: 0.01}
    events: {dropped: 0.2, doubled: 0.2}
    tenants: {jobs: {"amazon.titan-embed-text-v2:0": 3}}
    transform: {instances: {ml.g5.xlarge: 2}, fail_object: 0.1}      # SageMaker's jobs
    batch: {at_once: 2, interrupted: 0.1}                            # AWS Batch's children

`calls`, `events` and `output.late` are for all services alike, AWS Batch's events alone are its
own, since it promises to lose none. `quotas`, `timing`, `jobs` and `tenants` are Bedrock's.
"""

import random
from pathlib import Path
from typing import Any, Literal, Self

import pydantic
import yaml
from pydantic import Field

from batch_assets.errors import ConfigurationError
from batch_assets.rehearsal.batch.faults import STORMY_BATCH, Batch
from batch_assets.rehearsal.chances import Chance, Events, Seconds
from batch_assets.rehearsal.sagemaker.faults import STORMY_TRANSFORM, Transform
from batch_assets.settings.base import Bytes, Settings

Status = Literal["Submitted", "Validating", "Scheduled", "InProgress", "Stopping"]


class Quotas(Settings):
    """What Service Quotas says of every model, and what the service holds to."""

    min_records: int = Field(default=100, ge=1, description="Records in a job, at least.")
    max_records: int = Field(default=100_000, description="Records in a job, at most.")
    max_file_records: int = Field(default=100_000, description="Records in an input file, at most.")
    max_file_bytes: Bytes = Field(default=10**9, description="Bytes of an input file, at most.")
    max_job_bytes: Bytes = Field(default=5 * 10**9, description="Bytes of all input files, at most.")
    concurrent_jobs: int = Field(default=20, description="Jobs of a model in an account and region at once.")
    when_full: Literal["reject", "wait_submitted", "wait_scheduled"] = Field(
        default="reject",
        description="A create above the quota: ServiceQuotaExceededException, or accepted and kept waiting.",
    )
    counted: tuple[Status, ...] = Field(
        default=("Submitted", "Validating", "Scheduled", "InProgress", "Stopping"),
        description="States that hold a slot; AWS does not say which do.",
    )
    on_demand_rpm: int = Field(
        default=6000, description="InvokeModel calls per real minute; 0: none is allowed."
    )


class Timing(Settings):
    """How long a job stays in each state, in virtual seconds."""

    submitted: Seconds = (5, 20)
    validating: Seconds = (20, 60)
    scheduled: Seconds = (30, 120)
    running: Seconds = (300, 900)
    stopping: Seconds = (10, 60)
    hour: float = Field(
        default=3600,
        gt=0,
        description="Virtual seconds in an hour of timeoutDurationInHours: less expires "
        "sooner. Reading and writing files takes real time, which passes at the clock's speed.",
    )


class Calls(Settings):
    """What befalls calls to the control plane."""

    throttled: Chance = 0.0
    server_errors: Chance = Field(default=0.0, description="500, nothing was done.")
    lost_responses: Chance = Field(
        default=0.0, description="A create is accepted, then the connection is cut or a 500 sent."
    )
    per_second: dict[str, float] = Field(
        default={},
        description="Operation (CreateModelInvocationJob, …) → calls per real second before throttling.",
    )
    entitled: bool = Field(default=True, description="False: the account may not create batch jobs.")
    pass_role: bool = Field(default=True, description="False: the caller may not pass the role.")
    check_buckets: bool = Field(
        default=False, description="True: a missing or foreign bucket is refused at once, not in validation."
    )
    stop_refusal: Literal["ValidationException", "ConflictException"] = "ValidationException"
    name_taken: Literal["ValidationException", "ConflictException"] = "ConflictException"
    s3_slow_down: Chance = Field(default=0.0, description="503 SlowDown for a client's S3 call.")


class Jobs(Settings):
    """What befalls whole jobs."""

    role_reads_buckets: bool = Field(default=True, description="False: every job fails in validation.")
    fail_validation: Chance = 0.0
    fail_running: Chance = 0.0
    expire: Chance = Field(default=0.0, description="The job is never begun, and expires at its timeout.")
    partial: Chance = Field(
        default=0.0, description="Time runs out: PartiallyCompleted with a part of the records."
    )
    all_records_fail: Chance = Field(default=0.0, description="Completed, and every record has an error.")
    stop_race: Chance = Field(default=0.0, description="The job is completed just when it should stop.")
    unfinished: Literal["missing", "expired", "both"] = Field(
        default="both",
        description="Records that time did not suffice for: no line, an `expired` error, or either.",
    )


class Records(Settings):
    """What befalls single records."""

    throttled: Chance = 0.0
    internal: Chance = 0.0
    timeout: Chance = 0.0
    expired: Chance = 0.0
    refused: Chance = Field(default=0.0, description="400, and again whenever the same input comes.")
    forbidden: Chance = Field(
        default=0.0, description="403, not retryable. 1: every job fails as a whole, all its records alike."
    )
    bad_output: Chance = Field(default=0.0, description="A vector of the wrong length, with nulls, or none.")
    code_as_text: Chance = Field(default=0.0, description='"errorCode": "429" instead of 429.')
    bare_errors: Chance = Field(default=0.0, description="Errors without `expired` and `retryable`.")


class Output(Settings):
    """What befalls result files."""

    shuffled: bool = Field(default=True, description="AWS promises no order.")
    late: Chance = Field(default=0.0, description="All files appear after the job's end.")
    late_manifest: Chance = 0.0
    late_seconds: Seconds = (60, 600)
    absent: Chance = Field(default=0.0, description="No file ever appears, though all is paid for.")
    absent_manifest: Chance = 0.0
    missing_lines: Chance = 0.0
    doubled_lines: Chance = 0.0
    garbled_lines: Chance = Field(default=0.0, description="Lines cut off in their middle.")
    foreign_lines: Chance = Field(default=0.0, description="Extra lines with a recordId nobody sent.")
    cut_tail: Chance = Field(default=0.0, description="The file ends within its last line.")


class Tenants(Settings):
    """Jobs of others in the same account and region."""

    jobs: dict[str, int] = Field(default={}, description="Model id → jobs kept alive.")
    pause: Seconds = Field(default=(60, 600), description="Between the end of one and the next.")


class OnDemand(Settings):
    """What befalls InvokeModel and Converse."""

    served: bool = Field(
        default=True, description="False: models are called through inference profiles alone."
    )
    told: bool = Field(default=True, description="False: nobody may ask by which ways a model is called.")
    throttled: Chance = 0.0
    unavailable: Chance = 0.0


class Scenario(Settings):
    """All faults of a rehearsal. Defaults are `calm`."""

    seed: int = 0
    quotas: Quotas = Quotas()
    timing: Timing = Timing()
    calls: Calls = Calls()
    jobs: Jobs = Jobs()
    records: Records = Records()
    output: Output = Output()
    events: Events = Events()
    tenants: Tenants = Tenants()
    on_demand: OnDemand = OnDemand()
    transform: Transform = Transform()
    batch: Batch = Batch()

    @classmethod
    def load(cls, path_or_name: str | Path) -> Self:
        """`calm`, `stormy`, or a YAML file that says what differs from calm."""
        if path_or_name in ("calm", "stormy"):
            return cls.of(STORMY if path_or_name == "stormy" else {}, str(path_or_name))
        path = Path(path_or_name)
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise ConfigurationError(
                f"the scenario {str(path)!r} cannot be read: {reason}. Name a YAML file, or calm or stormy."
            ) from error
        return cls.of(content or {}, str(path))

    @classmethod
    def of(cls, content: Any, name: str = "scenario") -> Self:
        try:
            return cls.model_validate(content)
        except pydantic.ValidationError as error:
            reason = " ".join(str(error).split())
            raise ConfigurationError(f"the scenario {name!r} cannot be used: {reason}") from error

    def changed(self, changes: dict[str, Any]) -> "Scenario":
        """This scenario with some fields changed: `{"calls": {"throttled": 0.5}}` leaves the other calls' fields."""
        return Scenario.of(_merge(self, changes))

    def draw(self, *names: object) -> random.Random:
        """Chance for one thing, the same in every rehearsal with this seed."""
        return random.Random("/".join(map(str, (self.seed, *names))))


def _merge(old: Settings, new: dict[str, Any]) -> dict[str, Any]:
    # Mappings that are values themselves (per_second, tenants.jobs) are replaced, so that they can be emptied.
    changed = old.model_dump()
    for name, value in new.items():
        part = getattr(old, name, None)
        changed[name] = (
            _merge(part, value) if isinstance(part, Settings) and isinstance(value, dict) else value
        )
    return changed


STORMY: dict[str, Any] = {
    "seed": 1,
    "quotas": {"concurrent_jobs": 8},
    "calls": {
        "throttled": 0.05, "server_errors": 0.03, "lost_responses": 0.1, "s3_slow_down": 0.005,
        "per_second": {
            "CreateModelInvocationJob": 20, "ListModelInvocationJobs": 10, "CreateTransformJob": 10,
            "SubmitJob": 20,
        },
    },
    "jobs": {
        "fail_running": 0.02, "fail_validation": 0.01, "expire": 0.02, "partial": 0.05,
        "all_records_fail": 0.01, "stop_race": 0.3,
    },
    "timing": {"hour": 600},
    "records": {
        "throttled": 0.005, "internal": 0.003, "timeout": 0.001, "expired": 0.001, "refused": 0.0005,
        "forbidden": 0.0002, "bad_output": 0.0005, "code_as_text": 0.2, "bare_errors": 0.2,
    },
    "output": {
        "late": 0.1, "late_manifest": 0.1, "absent": 0.01, "absent_manifest": 0.05, "missing_lines": 0.001,
        "doubled_lines": 0.002, "garbled_lines": 0.001, "foreign_lines": 0.0005, "cut_tail": 0.05,
    },
    "events": {"dropped": 0.2, "doubled": 0.2, "late": 0.1, "swapped": 0.1},
    "tenants": {
        "jobs": {"amazon.titan-embed-text-v2:0": 2, "anthropic.claude-3-haiku-20240307-v1:0": 2},
    },
    "on_demand": {"throttled": 0.05, "unavailable": 0.02},
    "transform": STORMY_TRANSFORM,
    "batch": STORMY_BATCH,
}  # fmt: skip
