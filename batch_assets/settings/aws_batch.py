"""The executor aws_batch."""

from typing import ClassVar, Literal

import pydantic
from pydantic import Field

from batch_assets.settings.base import Settings
from batch_assets.settings.executor_base import (
    MAX_ATTEMPTS,
    POLL_SECONDS,
    BatchRecords,
    BatchTokens,
    ExecutorSettings,
    PollSeconds,
    Region,
    ShardAttempts,
    Tags,
)

FARGATE_MEMORY_MB = {
    0.25: (512, 1024, 2048),
    0.5: range(1024, 4096 + 1, 1024),
    1.0: range(2048, 8192 + 1, 1024),
    2.0: range(4096, 16384 + 1, 1024),
    4.0: range(8192, 30720 + 1, 1024),
    8.0: range(16384, 61440 + 1, 4096),
    16.0: range(32768, 122880 + 1, 8192),
}
"""Memory that FARGATE gives to so many vCPUs (ResourceRequirement in AWS Batch's API)."""


class RetrySettings(Settings):
    """What AWS Batch itself does with a child that ended badly. The pipeline's own attempts come after it."""

    attempts: int = Field(
        default=3, ge=1, le=10, description="How often AWS Batch starts a child, in all, within one job."
    )
    spot: bool = Field(
        default=True,
        description="true: it starts a child again only where its machine was taken away (spot); false: however "
        "it ended, unless with exit code 2.",
    )


class AwsBatchExecutorSettings(ExecutorSettings):
    """AWS Batch: array jobs whose children run the worker container, a shard each."""

    in_place: ClassVar[bool] = False
    acts_elsewhere: ClassVar[bool] = True
    paid_by_time: ClassVar[bool] = True
    type: Literal["aws_batch"] = Field(description="What computes: aws_batch, AWS Batch array jobs.")
    region: Region = None
    job_queue: str = Field(min_length=1, description="Name or ARN of the job queue.")
    job_definition: str | None = Field(
        default=None,
        description="Name, name:revision or ARN of a job definition whose container has this package; else name "
        "image.",
    )
    image: str | None = Field(
        default=None,
        description="Image of the worker container; a job definition with it is registered. Else name job_definition.",
    )
    platform: Literal["EC2", "FARGATE"] = Field(
        default="EC2", description="For image: where its containers run; FARGATE has no GPUs."
    )
    job_role_arn: str | None = Field(
        default=None, description="For image: the role that the worker has, with S3 access."
    )
    execution_role_arn: str | None = Field(
        default=None, description="For image: the role that starts the container; FARGATE needs it."
    )
    vcpus: float = Field(default=4, gt=0, description="vCPUs of a child.")
    memory_mb: int = Field(default=16_000, ge=4, description="Memory of a child in MiB.")
    gpus: int = Field(default=1, ge=0, description="GPUs of a child.")
    retry: RetrySettings = Field(
        default_factory=RetrySettings, description="What AWS Batch itself tries again."
    )
    timeout_seconds: int = Field(
        default=3600, ge=60, description="When AWS Batch ends an attempt of a child."
    )
    share_identifier: str | None = Field(
        default=None,
        pattern="^[A-Za-z0-9]{1,255}$",
        description="Fair-share identifier, for queues with a scheduling policy.",
    )
    priority: int | None = Field(
        default=None,
        ge=0,
        le=9999,
        description="Scheduling priority within the share identifier; higher goes first.",
    )
    environment: dict[str, str] = Field(
        default_factory=dict,
        description="Environment of the worker; no secrets, since jobs show it.",
    )
    tags: Tags = Field(default_factory=dict)
    max_children: int | None = Field(
        default=None,
        ge=1,
        description="Children alive at once, at most; by default no limit, with calls_per_second 32.",
    )
    batch_tokens: BatchTokens = "auto"
    batch_records: BatchRecords = None
    queue_url: str | None = Field(
        default=None,
        description="SQS queue fed with AWS Batch's state changes by EventBridge; by default only polling.",
    )
    poll_seconds: PollSeconds = POLL_SECONDS
    max_attempts: ShardAttempts = MAX_ATTEMPTS
    usd_per_hour: float | None = Field(
        default=None, gt=0, description="Price of one child in USD per hour: what shards cost is told by it."
    )

    @pydantic.model_validator(mode="after")
    def _one_definition(self) -> "AwsBatchExecutorSettings":
        if (self.job_definition is None) == (self.image is None):
            raise ValueError("name exactly one of job_definition and image")
        if self.priority is not None and self.share_identifier is None:
            raise ValueError("priority counts within a share_identifier; name one, or leave priority out")
        if self.platform == "FARGATE" and self.gpus:
            raise ValueError(f"FARGATE has no GPUs: write gpus: 0, not {self.gpus}")
        reserved = [name for name in self.environment if name.startswith("AWS_BATCH")]
        if reserved:
            raise ValueError(f"environment: AWS Batch sets {reserved[0]} itself; give yours another name")
        if self.image is not None:
            self._check_machine()
        return self

    def _check_machine(self) -> None:
        if self.platform == "EC2":
            if self.vcpus != int(self.vcpus):
                raise ValueError(f"vcpus: EC2 gives whole ones, not {self.vcpus:g}")
            return
        if self.execution_role_arn is None:
            raise ValueError("FARGATE needs execution_role_arn")
        given = FARGATE_MEMORY_MB.get(self.vcpus)
        if given is None:
            known = ", ".join(f"{vcpus:g}" for vcpus in FARGATE_MEMORY_MB)
            raise ValueError(f"vcpus: FARGATE gives {known}, not {self.vcpus:g}")
        if self.memory_mb not in given:
            nearest = min(given, key=lambda memory: abs(memory - self.memory_mb))
            raise ValueError(
                f"memory_mb: to {self.vcpus:g} vcpus FARGATE gives {given[0]} to {given[-1]} in certain steps, not "
                f"{self.memory_mb}; the nearest is {nearest}"
            )
