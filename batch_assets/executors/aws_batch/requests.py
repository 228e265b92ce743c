"""What AWS Batch is asked for: a job's containers, their tries, and the job definition where none is given.

Limits and names are those of the service's model (SubmitJob, RegisterJobDefinition).
"""

import hashlib
from typing import Any

import orjson

from batch_assets.settings.aws_batch import AwsBatchExecutorSettings, RetrySettings

ARRAY_JOBS = 10_000
"""Children of an array job, at most; at least 2."""

NEVER = "2"
"""The worker's exit code for what no other try would mend, see `worker/__main__.py`."""


LOST_MACHINES = ("Host EC2", "Your Spot Task was interrupted")
"""How the status reason of a job begins whose machine was taken away."""


def is_machine_lost(reason: str) -> bool:
    """Whether a worker's end, in AWS's words, is that of its machine."""
    return any(words in reason for words in LOST_MACHINES)


def worker_command(manifest: str) -> list[str]:
    """A container's whole command."""
    return ["python", "-m", "batch_assets.worker", "--manifest", manifest]


def asked(command: list[str], jobs: int) -> dict[str, Any]:
    """What a submission is asked: its workers' command, which names their manifest, and how many they are."""
    return {"command": command, "jobs": jobs}


def job_request(
    options: AwsBatchExecutorSettings, region: str, name: str, definition: str, manifest: str, jobs: int
) -> dict[str, Any]:
    """The parameters of SubmitJob for `jobs` workers: an array, or a plain job of one."""
    # A container on EC2 is not told its region, and object stores ask for it.
    told = {"AWS_REGION": region, **options.environment}
    environment = [{"name": key, "value": value} for key, value in sorted(told.items())]
    call: dict[str, Any] = {
        "jobName": name,
        "jobQueue": options.job_queue,
        "jobDefinition": definition,
        "containerOverrides": {
            "command": worker_command(manifest),
            "resourceRequirements": resources(options),
            "environment": environment,
        },
        "retryStrategy": retry_strategy(options.retry),
        "timeout": {"attemptDurationSeconds": options.timeout_seconds},
    }
    if jobs > 1:
        call["arrayProperties"] = {"size": jobs}
    if options.tags:
        call |= {"tags": dict(options.tags), "propagateTags": True}
    if options.share_identifier is not None:
        call["shareIdentifier"] = options.share_identifier
    if options.priority is not None:
        call["schedulingPriorityOverride"] = options.priority
    return call


def resources(options: AwsBatchExecutorSettings) -> list[dict[str, str]]:
    """One worker's share of a machine."""
    found = [
        {"type": "VCPU", "value": f"{options.vcpus:g}"},
        {"type": "MEMORY", "value": str(options.memory_mb)},
    ]
    return [*found, {"type": "GPU", "value": str(options.gpus)}] if options.gpus else found


def retry_strategy(retry: RetrySettings) -> dict[str, Any]:
    """Which ends AWS Batch itself answers with another try. The first rule that matches counts; none: another try."""
    if retry.spot:
        rules = [
            *({"onStatusReason": f"{words}*", "action": "RETRY"} for words in LOST_MACHINES),
            # Of an end any of these may be missing, and what no rule matches is tried again.
            {"onReason": "*", "action": "EXIT"},
            {"onExitCode": "*", "action": "EXIT"},
            {"onStatusReason": "*", "action": "EXIT"},
        ]
    else:
        rules = [{"onExitCode": NEVER, "action": "EXIT"}]
    return {"attempts": retry.attempts, "evaluateOnExit": rules}


def definition_request(options: AwsBatchExecutorSettings, prefix: str) -> dict[str, Any]:
    """The parameters of RegisterJobDefinition for `image`; its name tells it from every other one."""
    container: dict[str, Any] = {
        "image": options.image,
        "command": worker_command("Ref::manifest"),
        "resourceRequirements": resources(options),
        "jobRoleArn": options.job_role_arn,
        "executionRoleArn": options.execution_role_arn,
    }
    if options.platform == "FARGATE":
        container["networkConfiguration"] = {"assignPublicIp": "ENABLED"}
    call: dict[str, Any] = {
        "type": "container",
        "parameters": {"manifest": "none"},
        "containerProperties": {name: value for name, value in container.items() if value is not None},
        "platformCapabilities": [options.platform],
    }
    digest = hashlib.sha256(orjson.dumps(call, option=orjson.OPT_SORT_KEYS)).hexdigest()[:8]
    return {"jobDefinitionName": f"{prefix}worker-{digest}", **call}
