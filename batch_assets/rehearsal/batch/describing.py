"""How jobs are shown: JobDetail of DescribeJobs and of events, JobSummary of ListJobs. Times are milliseconds."""

from typing import Any

from batch_assets.rehearsal.account import ACCOUNT
from batch_assets.rehearsal.batch.job import STATES, Attempt, BatchJob

COMPUTE_ENVIRONMENT = "rehearsal"


def queue_arn(region: str, name: str) -> str:
    return f"arn:aws:batch:{region}:{ACCOUNT}:job-queue/{name}"


def job_arn(job: BatchJob) -> str:
    return f"arn:aws:batch:{job.region}:{ACCOUNT}:job/{job.id}"


def summary(job: BatchJob) -> dict[str, Any]:
    """The fields of a JobSummary."""
    return _shown(
        {
            "jobArn": job_arn(job),
            "jobId": job.id,
            "jobName": job.name,
            "createdAt": _ms(job.created),
            "shareIdentifier": job.request.get("shareIdentifier"),
            "status": job.status,
            "statusReason": job.reason,
            "startedAt": _ms(job.started),
            "stoppedAt": _ms(job.stopped),
            "container": _exit(job.attempts[-1]) if job.attempts else {},
            "arrayProperties": _short_array(job),
            "jobDefinition": job.definition.arn,
            "isCancelled": job.cancelled,
            "isTerminated": job.terminated is not None,
        }
    )


def detail(job: BatchJob) -> dict[str, Any]:
    """The fields of a JobDetail."""
    request, work = job.request, job.work
    return _shown(
        {
            "jobArn": job_arn(job),
            "jobName": job.name,
            "jobId": job.id,
            "jobQueue": queue_arn(job.region, job.queue),
            "status": job.status,
            "statusReason": job.reason,
            "shareIdentifier": request.get("shareIdentifier"),
            "schedulingPriority": request.get("schedulingPriorityOverride"),
            "attempts": [_attempt(job, attempt) for attempt in job.attempts],
            "createdAt": _ms(job.created),
            "startedAt": _ms(job.started),
            "stoppedAt": _ms(job.stopped),
            "retryStrategy": {"attempts": work.attempts, "evaluateOnExit": list(work.rules)},
            "timeout": None if work.timeout is None else {"attemptDurationSeconds": work.timeout},
            "dependsOn": request.get("dependsOn", []),
            "jobDefinition": job.definition.arn,
            "parameters": request.get("parameters", {}),
            "container": _container(job),
            "arrayProperties": _array(job),
            "tags": request.get("tags") or None,
            "propagateTags": request.get("propagateTags", False),
            "platformCapabilities": job.definition.described()["platformCapabilities"],
            "isCancelled": job.cancelled,
            "isTerminated": job.terminated is not None,
        }
    )


def _container(job: BatchJob) -> dict[str, Any]:
    properties = job.definition.container
    shown: dict[str, Any] = {
        "image": properties["image"],
        "command": list(job.work.command),
        "jobRoleArn": properties.get("jobRoleArn"),
        "executionRoleArn": properties.get("executionRoleArn"),
        "environment": [{"name": name, "value": value} for name, value in job.work.environment.items()],
        "resourceRequirements": list(job.work.resources),
        "volumes": [],
        "mountPoints": [],
        "ulimits": [],
        "networkInterfaces": [],
        "secrets": [],
    }
    if job.attempts:
        shown |= _exit(job.attempts[-1]) | {"logStreamName": _log_stream(job, job.attempts[-1])}
    return _shown(shown)


def _attempt(job: BatchJob, attempt: Attempt) -> dict[str, Any]:
    return _shown(
        {
            "container": _exit(attempt)
            | {"logStreamName": _log_stream(job, attempt), "networkInterfaces": []},
            "startedAt": _ms(attempt.started),
            "stoppedAt": _ms(attempt.stopped),
            "statusReason": attempt.ending.status_reason,
        }
    )


def _exit(attempt: Attempt) -> dict[str, Any]:
    return _shown({"exitCode": attempt.ending.exit_code, "reason": attempt.ending.reason})


def _array(job: BatchJob) -> dict[str, Any] | None:
    if job.parent:
        return {"statusSummary": {}, "index": job.index}
    if not job.children:
        return None
    # 0 too is told of every state.
    return {"statusSummary": {state: job.states[state] for state in STATES}, "size": len(job.children)}


def _short_array(job: BatchJob) -> dict[str, Any] | None:
    if job.parent:
        return {"index": job.index}
    return {"size": len(job.children)} if job.children else None


def _log_stream(job: BatchJob, attempt: Attempt) -> str:
    return f"{job.definition.name}/default/{attempt.log.replace(':', '-')}"


def _ms(moment: float | None) -> int | None:
    return None if moment is None else int(moment * 1000)


def _shown(content: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if value is not None}
