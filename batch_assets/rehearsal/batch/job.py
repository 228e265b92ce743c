"""One job of AWS Batch: a plain one, an array (the parent), or a child of one; where it stands, and its attempts.

How it moves from state to state is `jobs.py`, how it is shown `describing.py`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batch_assets.rehearsal.batch.definitions import Definition
from batch_assets.rehearsal.faults import Scenario

STATES = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED", "FAILED")
ENDS = ("SUCCEEDED", "FAILED")


@dataclass(frozen=True, slots=True)
class Work:
    """What every child of a submission does: request and definition laid over each other.

    `timeout`: seconds of an attempt, None without limit. `rules`: evaluateOnExit.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    attempts: int
    rules: Sequence[Mapping[str, str]]
    timeout: int | None
    resources: Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Fate:
    """What will befall one attempt. The first four are virtual seconds, `killed_after` real ones."""

    submitted: float
    runnable: float
    starting: float
    running: float
    interrupted: bool
    crashed: bool
    killed_after: float
    doubled: bool
    hangs: bool

    @classmethod
    def draw(cls, scenario: Scenario, seed_name: str, attempt: int) -> "Fate":
        chance = scenario.draw("batch", seed_name, attempt)
        faults, timing = scenario.batch, scenario.batch.timing
        return cls(
            submitted=chance.uniform(*timing.submitted),
            runnable=chance.uniform(*timing.runnable),
            starting=chance.uniform(*timing.starting),
            running=chance.uniform(*timing.running),
            interrupted=chance.random() < faults.interrupted,
            crashed=chance.random() < faults.crashed,
            killed_after=chance.uniform(*faults.killed_after),
            doubled=chance.random() < faults.doubled,
            hangs=chance.random() < faults.hangs,
        )


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended. `exit_code` None: its container's was never told, as when its host is gone."""

    exit_code: int | None
    status_reason: str
    reason: str | None = None
    timed_out: bool = False

    @property
    def succeeded(self) -> bool:
        return self.exit_code == 0 and not self.timed_out


@dataclass(frozen=True, slots=True)
class Attempt:
    """One that has ended. Times are virtual unix seconds."""

    started: float | None
    stopped: float
    ending: Ending
    log: str


@dataclass(slots=True, eq=False)
class BatchJob:
    """A job in one region. `request` is what SubmitJob was given; `number`: of its submission, from 0."""

    id: str
    region: str
    order: int
    number: int
    request: Mapping[str, Any]
    definition: Definition
    work: Work
    created: float
    fate: Fate
    index: int | None = None
    parent: "BatchJob | None" = None
    children: list["BatchJob"] = field(default_factory=list["BatchJob"])
    awaited: list["BatchJob"] = field(
        default_factory=list["BatchJob"]
    )  # must have succeeded before it begins
    status: str = "SUBMITTED"
    reason: str | None = None
    started: float | None = None
    stopped: float | None = None
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    cancelled: bool = False
    terminated: str | None = None  # the reason that TerminateJob gave
    states: Counter[str] = field(default_factory=Counter[str])  # of children

    @property
    def name(self) -> str:
        return self.request["jobName"]

    @property
    def queue(self) -> str:
        return self.request["jobQueue"].rsplit("/", 1)[-1]

    @property
    def active(self) -> bool:
        return self.status not in ENDS

    @property
    def seed_name(self) -> str:
        return seed_name(self.number, self.index)


def seed_name(number: int, index: int | None) -> str:
    """What chance knows a job by: its place, since names hold digits of where a deployment's output lies."""
    return f"{number}:{'' if index is None else index}"
