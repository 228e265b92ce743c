"""The executor sagemaker."""

import re
from typing import ClassVar, Literal

import pydantic
from pydantic import Field

from batch_assets.settings.executor_base import (
    MAX_ATTEMPTS,
    POLL_SECONDS,
    ExecutorSettings,
    PollSeconds,
    Priority,
    RecordAttempts,
    Region,
    Staging,
    Tags,
)

# The service's own pattern of a model's name (botocore's model of CreateTransformJob).
MODEL_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
MOST_PAYLOAD_MB = 100
"""MaxPayloadInMB times MaxConcurrentTransforms may not exceed it, nor either alone (CreateTransformJob)."""


class SageMakerExecutorSettings(ExecutorSettings):
    """Amazon SageMaker Batch Transform: jobs that send a shard's records through a model's container."""

    in_place: ClassVar[bool] = False
    acts_elsewhere: ClassVar[bool] = True
    paid_by_time: ClassVar[bool] = True
    type: Literal["sagemaker"] = Field(
        description="What computes: sagemaker, Amazon SageMaker Batch Transform."
    )
    region: Region = None
    staging: Staging = None
    model_name: str = Field(description="Name of the SageMaker model, as CreateModel gave it.")
    instance_type: str = Field(default="ml.g5.xlarge", description="Instances that a job runs on.")
    instance_count: int = Field(default=1, ge=1, le=100, description="Instances of one job.")
    strategy: Literal["MultiRecord", "SingleRecord"] = Field(
        default="MultiRecord",
        description="MultiRecord fills each call of the container with lines up to max_payload_mb; SingleRecord "
        "sends one line a call.",
    )
    split: Literal["Line"] = Field(default="Line", description="How a file is split into records: by line.")
    assemble: Literal["Line"] = Field(
        default="Line", description="How results are put together: a line each, which the join needs."
    )
    max_payload_mb: int = Field(
        default=6, ge=1, le=MOST_PAYLOAD_MB, description="MB in one call of the container, at most."
    )
    max_concurrent: int | None = Field(
        default=None,
        ge=1,
        le=MOST_PAYLOAD_MB,
        description="Calls of one instance's container at a time; by default what the container asks for, else 1. "
        "Times max_payload_mb at most 100.",
    )
    invocation_timeout_seconds: int | None = Field(
        default=None,
        ge=1,
        le=3600,
        description="When a call of the container is given up; by default the service's 600.",
    )
    invocation_retries: int | None = Field(
        default=None, ge=0, le=3, description="How often the service repeats a call; by default its 3."
    )
    content_type: Literal["application/jsonlines", "application/json", "text/csv"] = Field(
        default="application/jsonlines",
        description="What the container is sent. application/json, a JSON object a call, goes with SingleRecord. In "
        "text/csv, line breaks within a text become spaces: the service splits by line.",
    )
    input_field: str = Field(
        default="inputs",
        min_length=1,
        description="Field of the JSON object sent to the container that holds the text.",
    )
    output_field: str | None = Field(
        default=None,
        description="Field of the container's answer that holds the vector or the text; by default it is looked for.",
    )
    objects_per_shard: int = Field(
        default=4,
        ge=1,
        le=1000,
        description="Input files of a shard: of a failed job, those that succeeded are kept, the others tried again.",
    )
    environment: dict[str, str] = Field(
        default_factory=dict,
        max_length=16,
        description="Environment of the container, at most 16 variables; part of the fingerprint.",
    )
    kms_key: str | None = Field(
        default=None,
        min_length=1,
        description="KMS key that encrypts the results, and the volumes of instances without local disks (those with "
        "local disks encrypt them by hardware).",
    )
    tags: Tags = Field(default_factory=dict)
    queue_url: str | None = Field(
        default=None,
        description="SQS queue fed with SageMaker's state changes by EventBridge; by default only polling.",
    )
    poll_seconds: PollSeconds = POLL_SECONDS
    max_jobs: int | None = Field(
        default=None,
        ge=1,
        description="Jobs at once; by default what the account's quota of instances allows, as Service Quotas tells "
        "it.",
    )
    max_attempts: RecordAttempts = MAX_ATTEMPTS
    budget_usd: float | None = Field(
        default=None,
        gt=0,
        description="The pipeline spends no more than this; needs usd_per_hour and max_job_hours.",
    )
    usd_per_hour: float | None = Field(
        default=None, gt=0, description="Price of one instance in USD per hour: what jobs cost is told by it."
    )
    max_job_hours: float | None = Field(
        default=None,
        gt=0,
        description="A job that runs longer is stopped, and what is missing tried again; by default no limit.",
    )
    priority: Priority = 0

    @property
    def own_model(self) -> str:
        return self.model_name

    @property
    def longest_job_hours(self) -> float | None:
        return self.max_job_hours

    @pydantic.field_validator("model_name")
    @classmethod
    def _legal_model(cls, name: str) -> str:
        if not MODEL_NAME.fullmatch(name):
            raise ValueError("use 1 to 63 of A-Z, a-z, 0-9 and -, as CreateModel does")
        return name

    @pydantic.model_validator(mode="after")
    def _fits(self) -> "SageMakerExecutorSettings":
        if self.max_concurrent is not None and self.max_concurrent * self.max_payload_mb > MOST_PAYLOAD_MB:
            raise ValueError(
                f"max_concurrent {self.max_concurrent} times max_payload_mb {self.max_payload_mb} is more than "
                f"{MOST_PAYLOAD_MB}, the service's limit"
            )
        if self.content_type == "application/json" and self.strategy != "SingleRecord":
            raise ValueError(
                "content_type application/json is one object a call: write strategy: SingleRecord, or content_type: "
                "application/jsonlines"
            )
        if self.budget_usd is not None and (self.usd_per_hour is None or self.max_job_hours is None):
            raise ValueError(
                "budget_usd needs usd_per_hour and max_job_hours: without them no job has a bound"
            )
        return self
