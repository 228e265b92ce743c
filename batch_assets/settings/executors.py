"""Which executors there are, and how `type` tells them apart in YAML."""

from collections.abc import Mapping
from typing import Annotated, Any

import pydantic

from batch_assets.settings.aws_batch import AwsBatchExecutorSettings
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


def _executor_type(value: Any) -> Any:
    """Which executor is meant: gpu where nothing is said."""
    if isinstance(value, Mapping):
        return value.get("type", "gpu")
    return next((kind for kind, model in EXECUTOR_SETTINGS.items() if isinstance(value, model)), None)


# Each executor adds its settings class here; `type` tells them apart.
AnyExecutorSettings = Annotated[
    Annotated[GpuExecutorSettings, pydantic.Tag("gpu")]
    | Annotated[RayExecutorSettings, pydantic.Tag("ray")]
    | Annotated[GatewayExecutorSettings, pydantic.Tag("gateway")]
    | Annotated[BedrockExecutorSettings, pydantic.Tag("bedrock")]
    | Annotated[SageMakerExecutorSettings, pydantic.Tag("sagemaker")]
    | Annotated[AwsBatchExecutorSettings, pydantic.Tag("aws_batch")],
    pydantic.Discriminator(
        _executor_type,
        custom_error_type="executor_type",
        custom_error_message=f"type should be one of {', '.join(EXECUTOR_SETTINGS)}",
    ),
]
