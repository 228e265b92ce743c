"""Which executors there are, and how `type` tells them apart in YAML."""

from collections.abc import Mapping
from typing import Annotated, Any

import pydantic

from batch_assets.settings.aws_batch import AwsBatchExecutorSettings
from batch_assets.settings.base import Settings
from batch_assets.settings.bedrock import BedrockExecutorSettings
from batch_assets.settings.in_place import GpuExecutorSettings, RayExecutorSettings
from batch_assets.settings.sagemaker import SageMakerExecutorSettings

EXECUTOR_SETTINGS: dict[str, type[Settings]] = {
    "gpu": GpuExecutorSettings,
    "ray": RayExecutorSettings,
    "bedrock": BedrockExecutorSettings,
    "sagemaker": SageMakerExecutorSettings,
    "aws_batch": AwsBatchExecutorSettings,
}


def _executor_type(value: Any) -> Any:
    """Which executor is meant: gpu where nothing is said."""
    return value.get("type", "gpu") if isinstance(value, Mapping) else getattr(value, "type", None)


# Each executor adds its settings class here; `type` tells them apart.
ExecutorSettings = Annotated[
    Annotated[GpuExecutorSettings, pydantic.Tag("gpu")]
    | Annotated[RayExecutorSettings, pydantic.Tag("ray")]
    | Annotated[BedrockExecutorSettings, pydantic.Tag("bedrock")]
    | Annotated[SageMakerExecutorSettings, pydantic.Tag("sagemaker")]
    | Annotated[AwsBatchExecutorSettings, pydantic.Tag("aws_batch")],
    pydantic.Discriminator(
        _executor_type,
        custom_error_type="executor_type",
        custom_error_message=f"type should be one of {', '.join(EXECUTOR_SETTINGS)}",
    ),
]
