"""The part of a scenario that is about AWS Batch's jobs."""

from typing import Any

from pydantic import Field

from batch_assets.rehearsal.chances import Chance, Events, Seconds
from batch_assets.settings.base import Settings


class BatchTiming(Settings):
    """How long a job stays in each state, in virtual seconds."""

    submitted: Seconds = (1, 5)
    runnable: Seconds = Field(default=(5, 30), description="Until an instance is found for it.")
    starting: Seconds = Field(default=(2, 10), description="Until its image is there.")
    running: Seconds = Field(default=(0, 0), description="Before its process begins, which takes real time.")


class Batch(Settings):
    """What befalls AWS Batch's jobs. `calm` by default; a plain job and each child of an array have their own fate."""

    queues: tuple[str, ...] = Field(default=(), description="Job queues that exist; none named: every one.")
    capacity: int = Field(default=256, ge=1, description="Jobs in STARTING and RUNNING at once.")
    at_once: int = Field(default=2, ge=1, description="Processes of this machine at once, at most.")
    timing: BatchTiming = BatchTiming()
    timeout_second: float = Field(
        default=1.0, gt=0, description="Real seconds of a process in a second of attemptDurationSeconds."
    )
    kept_seconds: float = Field(
        default=7 * 86_400, gt=0, description="Virtual seconds after its end when a job is forgotten."
    )
    interrupted: Chance = Field(
        default=0.0, description="Per attempt: its host is taken away, its process killed."
    )
    crashed: Chance = Field(default=0.0, description="Per attempt: its process is killed, exit code 137.")
    killed_after: Seconds = Field(
        default=(0.0, 3.0),
        description="Real seconds after which these two strike; a process that has ended sooner has done its work, "
        "and counts as killed all the same.",
    )
    doubled: Chance = Field(default=0.0, description="Per attempt: its process runs twice at the same time.")
    hangs: Chance = Field(default=0.0, description="Per attempt: it never begins, until its timeout.")
    events: Events = Events()


STORMY_BATCH: dict[str, Any] = {
    "interrupted": 0.1, "crashed": 0.05, "doubled": 0.05, "hangs": 0.02,
    "events": {"doubled": 0.2, "late": 0.1, "swapped": 0.1, "dropped": 0.02},
}  # fmt: skip
