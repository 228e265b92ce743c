"""Which executors there are, and how `type` tells them apart in YAML."""

from typing import Annotated

import pydantic

from batch_assets.settings.aws_batch import AwsBatchExecutorSettings
from batch_assets.settings.base import by_type
from batch_assets.settings.bedrock import BedrockExecutorSettings
from batch_assets.settings.executor_base import ExecutorSettings
from batch_assets.settings.gateway import GatewayExecutorSettings
from batch_assets.settings.in_place import GpuExecutorSettings, RayExecutorSettings
from batch_assets.settings.sagemaker import SageMakerExecutorSettings

EXECUTOR_SETTINGS: dict[str, type[ExecutorSettings]] = {
    "gpu": GpuExecutorSettings,
    "ray": RayExecutorSettings,
    "gateway": GatewayExecutorSettings,
    "bedrock": BedrockExecutorSettings,
    "sagemaker": SageMakerExecutorSettings,
    "aws_batch": AwsBatchExecutorSettings,
}

BatchServiceSettings = BedrockExecutorSettings | SageMakerExecutorSettings
"""Of executors whose service reads request files and writes result files."""
ServiceSettings = BatchServiceSettings | AwsBatchExecutorSettings
"""Of executors at a service: their jobs outlive a run."""
PaidSettings = BatchServiceSettings | GatewayExecutorSettings
"""Of executors that take a budget."""
WorkerSettings = GpuExecutorSettings | RayExecutorSettings | AwsBatchExecutorSettings
"""Of executors whose work our worker does, here or in a service's containers."""


# Each executor adds its settings class here; `type` tells them apart.
AnyExecutorSettings = Annotated[
    Annotated[GpuExecutorSettings, pydantic.Tag("gpu")]
    | Annotated[RayExecutorSettings, pydantic.Tag("ray")]
    | Annotated[GatewayExecutorSettings, pydantic.Tag("gateway")]
    | Annotated[BedrockExecutorSettings, pydantic.Tag("bedrock")]
    | Annotated[SageMakerExecutorSettings, pydantic.Tag("sagemaker")]
    | Annotated[AwsBatchExecutorSettings, pydantic.Tag("aws_batch")],
    by_type(EXECUTOR_SETTINGS, default="gpu"),
]
