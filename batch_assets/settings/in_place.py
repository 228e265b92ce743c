"""The executors in place: the run is the work, on this machine or on a Ray cluster."""

import re
from typing import Annotated, ClassVar, Literal

import pydantic
from pydantic import Field

from batch_assets.settings.executor_base import (
    MAX_ATTEMPTS,
    BatchRecords,
    BatchTokens,
    ExecutorSettings,
    ShardAttempts,
)


class GpuExecutorSettings(ExecutorSettings):
    """The machine the run is on: its GPU, or its CPU where there is none."""

    in_place: ClassVar[bool] = True
    acts_elsewhere: ClassVar[bool] = False
    type: Literal["gpu"] = Field(default="gpu", description="What computes: gpu, this machine.")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N.")
    batch_tokens: BatchTokens = "auto"
    batch_records: BatchRecords = None
    max_attempts: ShardAttempts = MAX_ATTEMPTS

    @pydantic.field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
            raise ValueError("use auto, cpu, cuda or cuda:N")
        return device


class RayExecutorSettings(ExecutorSettings):
    """A Ray cluster, or this machine's cores and GPUs as one: workers that pull shards."""

    in_place: ClassVar[bool] = True
    acts_elsewhere: ClassVar[bool] = False
    type: Literal["ray"] = Field(description="What computes: ray, the workers of a Ray cluster.")
    address: str = Field(
        default="auto",
        description="auto: the cluster in RAY_ADDRESS or one that runs on this machine, else one is started here; "
        "local: always start one here; else a cluster's address, such as ray://head:10001.",
    )
    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto",
        description="Workers, each with the model in memory; auto: as many as the cluster has room for.",
    )
    gpus_per_worker: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        default="auto",
        description="GPUs of one worker; 0.5 puts two on a GPU; auto is 1 where the cluster has GPUs, else 0.",
    )
    cpus_per_worker: float = Field(
        default=1, gt=0, description="CPU cores of one worker, which its threads share."
    )
    batch_tokens: BatchTokens = "auto"
    batch_records: BatchRecords = None
    max_attempts: ShardAttempts = MAX_ATTEMPTS
