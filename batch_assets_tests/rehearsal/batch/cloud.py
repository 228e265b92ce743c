"""AWS Batch of a rehearsal server as its tests meet it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.server import RehearsalServer
from batch_assets_tests.rehearsal.aws import Aws
from batch_assets_tests.waiting import wait_until

ENDS = ("SUCCEEDED", "FAILED")
# Without `site`, Python begins in a third of the time.
PYTHON = ["python", "-S", "-c"]
QUICK = {"timing": dict.fromkeys(("submitted", "runnable", "starting", "running"), (0, 0))}


class Cloud(Aws):
    """A queue, a definition, and a server whose clock stands still until a test moves it."""

    @cached_property
    def batch(self) -> Any:
        return self.client("batch")

    def define(self, program: str = "pass", **changes: Any) -> str:
        """Register a definition whose container runs these lines of Python; its name."""
        container = {
            "image": "worker:1",
            "command": [*PYTHON, program],
            "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "1000"}],
        }
        wanted = {"jobDefinitionName": "worker", "type": "container", "containerProperties": container}
        return self.batch.register_job_definition(**(wanted | changes))["jobDefinitionName"]

    def submit(self, program: str | None = None, size: int | None = None, **changes: Any) -> str:
        """Submit a job, or an array of this size; its id."""
        self.made += 1
        wanted: dict[str, Any] = {
            "jobName": f"job-{self.made}",
            "jobQueue": "queue",
            "jobDefinition": "worker",
        }
        if program is not None:
            wanted["containerOverrides"] = {"command": [*PYTHON, program]}
        if size is not None:
            wanted["arrayProperties"] = {"size": size}
        return self.batch.submit_job(**(wanted | changes))["jobId"]

    def describe(self, identity: str) -> dict[str, Any]:
        return self.batch.describe_jobs(jobs=[identity])["jobs"][0]

    def reach(self, arn: str, *statuses: str, step: float | None = None) -> dict[str, Any]:
        """Move the clock by steps, and give processes time, until the job is in such a state (default: an end)."""
        wanted = set(statuses) or set(ENDS)
        job = self.server.batch_jobs.by_id[arn]

        def reached() -> bool:
            status = job.status
            assert status in wanted or status not in ENDS, job
            if step and status not in wanted:
                self.server.set_clock(advance=step)
            return status in wanted

        wait_until(reached, lambda: job)
        return self.describe(arn)

    def run(self, program: str | None = None, size: int | None = None, **changes: Any) -> dict[str, Any]:
        """Submit a job and see it end."""
        return self.reach(self.submit(program, size, **changes))

    def children(self, identity: str) -> list[tuple[str, str | None]]:
        """State and its reason of each child."""
        size = self.describe(identity)["arrayProperties"]["size"]
        found = self.batch.describe_jobs(jobs=[f"{identity}:{index}" for index in range(size)])["jobs"]
        return [(child["status"], child.get("statusReason")) for child in found]

    def began(self) -> list[int]:
        """How often a process was begun, for each command and index."""
        return sorted(runs.began for runs in self.server.books.runs.values())


@contextmanager
def cloud(**scenario: Any) -> Iterator[Cloud]:
    """A rehearsal with a still clock, in which jobs need no virtual time but as `scenario` says."""
    merged = Scenario().changed({"batch": QUICK}).changed(scenario)
    with RehearsalServer(merged, speed=0) as server:
        yield Cloud(server)
