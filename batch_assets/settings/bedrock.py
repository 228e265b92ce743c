"""The executor bedrock."""

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
)
from batch_assets.settings.prices import TokenPrices


class BedrockExecutorSettings(ExecutorSettings):
    """Amazon Bedrock batch inference: jobs that a service runs, under its quotas."""

    in_place: ClassVar[bool] = False
    acts_elsewhere: ClassVar[bool] = True
    type: Literal["bedrock"] = Field(description="What computes: bedrock, Amazon Bedrock batch inference.")
    region: Region = None
    role_arn: str = Field(description="The role that Bedrock takes to read requests and write results.")
    staging: Staging = None
    model_id: str = Field(description="Model id, inference profile, or their ARN.")
    queue_url: str | None = Field(
        default=None,
        description="SQS queue fed with Bedrock's state changes by EventBridge; by default only polling.",
    )
    poll_seconds: PollSeconds = POLL_SECONDS
    timeout_hours: int = Field(default=24, ge=24, le=168, description="When the service gives a job up.")
    max_jobs: int | None = Field(
        default=None,
        ge=1,
        description="Jobs at once; by default the account's quota, as Service Quotas tells it.",
    )
    min_records: int | None = Field(
        default=None, ge=1, description="Records in a job, at least; by default the model's quota."
    )
    max_records: int | None = Field(
        default=None, ge=1, description="Records in a job, at most; by default the model's quota."
    )
    remainder: Literal["on_demand", "pool"] = Field(
        default="on_demand",
        description="Fewer records than a job must have: on_demand calls the model for each, "
        "pool waits to put those of several shards into one job.",
    )
    on_demand_rpm: int = Field(default=600, ge=1, description="Calls per minute for remainders, at most.")
    max_attempts: RecordAttempts = MAX_ATTEMPTS
    too_long: Literal["truncate", "reject"] = Field(
        default="truncate", description="What becomes of a text that is longer than the model takes."
    )
    budget_usd: float | None = Field(
        default=None, gt=0, description="The pipeline spends no more than this; by default there is no limit."
    )
    priority: Priority = 0
    prices: TokenPrices | None = Field(
        default=None, description="Instead of the package's own price table, which has a date."
    )

    @property
    def own_model(self) -> str:
        return self.model_id

    @pydantic.field_validator("role_arn")
    @classmethod
    def _role(cls, arn: str) -> str:
        if not re.fullmatch(r"arn:aws(-[^:]+)?:iam::([0-9]{12})?:role/.+", arn):
            raise ValueError("write arn:aws:iam::<account>:role/<name>")
        return arn
