"""AWS Batch's control plane, in this project's words.

SubmitJob has no idempotency token: the same call twice is two jobs. So it is never repeated by the
client, and after a lost answer the job is looked for by its name. What is asked for is in `requests.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from batch_assets.errors import ConfigurationError, SubmissionRefused
from batch_assets.executors.aws.errors import (
    FORBIDDEN,
    cannot_ask,
    error_code,
    error_message,
    is_slow_down,
    refusal,
    status_code,
    unreachable,
)
from batch_assets.executors.aws.job_calls import pages, state_of
from batch_assets.executors.aws_batch.requests import asked
from batch_assets.executors.base import JobState
from batch_assets.executors.service_jobs import NotAsked, ServiceJob, Unanswered
from batch_assets.plain_text import plain_logger

DESCRIBED_AT_ONCE = 100  # the most ids of one DescribeJobs
PAGE = 100
CHILDREN_PAGE = 1000
ENDED = ("SUCCEEDED", "FAILED")
ALL = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING", *ENDED)
STATES = {
    "SUBMITTED": JobState.SUBMITTED,
    "PENDING": JobState.SUBMITTED,
    "RUNNABLE": JobState.SUBMITTED,
    "STARTING": JobState.SUBMITTED,
    "RUNNING": JobState.RUNNING,
    "SUCCEEDED": JobState.SUCCEEDED,
    "FAILED": JobState.FAILED,
}
logger = plain_logger(__name__)


class _Malformed(Exception):
    """The service says that a call cannot be; the text is its own."""


@dataclass
class AwsBatchService:
    """Jobs in one queue."""

    client: Any
    client_once: Any  # tries nothing twice: what it raises is about the one call that was made
    queue: str

    def submit(self, call: dict[str, Any]) -> str:
        """Start a job; its id. Raises SlotsFull, Unanswered (it may or may not exist now) or SubmissionRefused."""
        try:
            return str(self.client_once.submit_job(**call)["jobId"])
        except Exception as error:
            raise self._refusal(error, "SubmitJob") from error

    def definition(self, request: dict[str, Any]) -> str:
        """The ARN of the job definition of that name, registered if there is none."""
        name = request["jobDefinitionName"]
        try:
            found = self.client.describe_job_definitions(jobDefinitionName=name, status="ACTIVE")
            for definition in found.get("jobDefinitions", ()):
                return str(definition["jobDefinitionArn"])
            return str(self.client.register_job_definition(**request)["jobDefinitionArn"])
        except Exception as error:
            refused = self._refusal(error, "RegisterJobDefinition")
            if isinstance(refused, Unanswered):
                raise NotAsked(f"job definition {name}: no answer came ({refused})") from refused
            raise refused from error

    def check_queue(self) -> None:
        """Raise ConfigurationError for a queue that is not there or takes no jobs; who may not look is let by."""
        try:
            found = self.client.describe_job_queues(jobQueues=[self.queue]).get("jobQueues", ())
        except Exception as error:
            if status_code(error) == 0:
                raise unreachable(error) from error
            logger.debug("queue %s: %s", self.queue, error_message(error))
            return
        if not found:
            raise ConfigurationError(
                f"executor.job_queue: there is no job queue {self.queue!r} in this account and region; create it, or "
                "name another"
            )
        state, status = found[0].get("state", "ENABLED"), found[0].get("status", "VALID")
        if (state, status) != ("ENABLED", "VALID"):
            raise ConfigurationError(
                f"executor.job_queue: {self.queue!r} is {state} and {status}, so nothing in it would run; it must be "
                "ENABLED and VALID"
            )

    def describe(self, ids: Sequence[str]) -> list[ServiceJob]:
        """The truth about these jobs; those that the service does not know are left out. Raises Unanswered."""
        return [service_job(detail) for detail in self.details(ids)]

    def details(self, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The same as the service tells it. Raises Unanswered."""
        for start in range(0, len(ids), DESCRIBED_AT_ONCE):
            try:
                answer = self.client.describe_jobs(jobs=list(ids[start : start + DESCRIBED_AT_ONCE]))
            except Exception as error:
                raise self._unanswered(error) from error
            yield from answer.get("jobs", ())

    def named(self, name: str) -> list[ServiceJob]:
        """Jobs of this name, or that begin so where it ends in `*`, the oldest first. Raises Unanswered."""
        wanted = name.removesuffix("*")
        try:
            found = self._listed(filters=[{"name": "JOB_NAME", "values": [name]}])
        except _Malformed:
            # Not everything that speaks this protocol knows filters.
            try:
                found = [job for state in ALL for job in self._listed(jobStatus=state)]
            except _Malformed as error:
                raise SubmissionRefused(
                    f"AWS Batch does not list the jobs in {self.queue}: {error}; name a job queue that is ENABLED and "
                    "VALID in executor.job_queue"
                ) from error
        jobs = [
            service_job(summary)
            for summary in found
            if (summary["jobName"].startswith(wanted) if name.endswith("*") else summary["jobName"] == wanted)
        ]
        return sorted(jobs, key=lambda job: job.submitted_at)

    def ended_children(self, job_id: str) -> dict[int, JobState]:
        """Which children of an array have ended, and how, by their index. Raises Unanswered.

        Of an array that the service has forgotten it tells nothing, and is not asked for ever.
        """
        ended: dict[int, JobState] = {}
        for status in ENDED:
            call = {"arrayJobId": job_id, "jobStatus": status, "maxResults": CHILDREN_PAGE}
            try:
                for summary in self._pages(call):
                    index = summary.get("arrayProperties", {}).get("index")
                    place = int(index if index is not None else summary["jobId"].rsplit(":", 1)[-1])
                    ended[place] = STATES[status]
            except Exception as error:
                if error_code(error) == "ClientException" and not is_slow_down(error):
                    logger.debug("children of %s: %s", job_id, error_message(error))
                    continue
                raise self._unanswered(error) from error
        return ended

    def _listed(self, **call: Any) -> list[dict[str, Any]]:
        """Jobs of the queue. Raises Unanswered, or _Malformed where the call itself is not taken."""
        try:
            return list(self._pages({"jobQueue": self.queue, "maxResults": PAGE, **call}))
        except Exception as error:
            if error_code(error) in ("ClientException", "ValidationException") and not is_slow_down(error):
                raise _Malformed(error_message(error)) from error
            raise self._unanswered(error) from error

    def _pages(self, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
        return pages(self.client.list_jobs, call, "jobSummaryList")

    def terminate(self, job_id: str, reason: str) -> None:
        """End a job wherever it stands; one that has ended is left as it is. Raises Unanswered."""
        try:
            self.client.terminate_job(jobId=job_id, reason=reason)
        except Exception as error:
            if error_code(error) == "ClientException" and not is_slow_down(error):
                logger.debug("job %s: not ended: %s", job_id, error_message(error))
                return
            raise cannot_ask(error, "AWS Batch", "batch:TerminateJob") from error

    def _unanswered(self, error: Exception) -> Exception:
        return cannot_ask(error, "AWS Batch", "batch:DescribeJobs and batch:ListJobs")

    def _refusal(self, error: Exception, call: str) -> Exception:
        """What a failed call that was to start something means."""
        code, message = error_code(error), error_message(error)
        step = "correct it, then `batch-assets run` goes on"
        if code in FORBIDDEN:
            rights = f"batch:{call} on the queue {self.queue} and the job definition"
            if call == "RegisterJobDefinition":
                rights = f"batch:{call}, and iam:PassRole on job_role_arn and execution_role_arn"
            step = f"allow {rights}"
        elif "queue" in message.lower():
            step = "name a job queue that is ENABLED and VALID in executor.job_queue"
        elif "definition" in message.lower():
            step = "name an active job definition in executor.job_definition"
        return refusal(error, f"AWS Batch refuses jobs in {self.queue}", step)


def service_job(answer: dict[str, Any]) -> ServiceJob:
    """A JobDetail, or a JobSummary, in this project's words."""
    status = answer.get("status", "SUBMITTED")
    state = state_of(answer["jobId"], status, STATES)
    array = answer.get("arrayProperties") or {}
    command = (answer.get("container") or {}).get("command")  # a summary has none
    summary = array.get("statusSummary") or {}
    ended = sum(int(summary.get(name, 0)) for name in ENDED)
    if state is JobState.SUBMITTED and (ended or summary.get("RUNNING")):
        state = JobState.RUNNING
    if state is JobState.FAILED and (answer.get("isTerminated") or answer.get("isCancelled")):
        state = JobState.STOPPED
    return ServiceJob(
        id=str(answer["jobId"]),
        name=str(answer.get("jobName", "")),
        model="",
        state=state,
        message=describe_end(answer) if status in ENDED else "",
        submitted_at=_seconds(answer.get("createdAt")) or 0.0,
        began_at=_seconds(answer.get("startedAt")),
        ended_at=_seconds(answer.get("stoppedAt")),
        # Without a summary it is not known: as many as there are, so that they are asked for.
        children=ended if summary else int(array.get("size") or 0),
        asked=asked(list(command), int(array.get("size") or 1)) if command else None,
    )


def describe_end(detail: dict[str, Any]) -> str:
    """Why a job ended, in AWS's words: status reason, the container's, and its exit code."""
    container = detail.get("container") or {}
    parts = [detail.get("statusReason"), container.get("reason")]
    if container.get("exitCode") is not None:
        parts.append(f"exit code {container['exitCode']}")
    return ", ".join(str(part) for part in parts if part)


def _seconds(milliseconds: Any) -> float | None:
    return None if not milliseconds else float(milliseconds) / 1000
