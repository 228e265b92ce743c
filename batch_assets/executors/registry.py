"""From an executor's `type` in YAML to what makes it: the machine or service it runs on.

The list of types and their fields is `settings/executors.py`.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from batch_assets.errors import ConfigurationError
from batch_assets.executors.aws.account import AwsAccount
from batch_assets.executors.aws_batch.account import AwsBatchAccount
from batch_assets.executors.base import Executor, Progress
from batch_assets.executors.bedrock.account import BedrockAccount
from batch_assets.executors.gateway.servers import ModelServers
from batch_assets.executors.gpu import GpuMachine
from batch_assets.executors.ray.cluster import RayCluster
from batch_assets.executors.sagemaker.account import SageMakerAccount
from batch_assets.settings.pipeline import PipelineSettings


class ExecutorHost(Protocol):
    """What executors of one type share: a machine, a service's client. One per process.

    `progress` is told of records as they are embedded, by executors in place.
    """

    progress: Progress | None

    def executor(self, settings: PipelineSettings) -> Executor: ...

    def embed_query(self, settings: PipelineSettings, text: str) -> npt.NDArray[np.float32]:
        """The vector (dimensions,) of a text to be looked for among the pipeline's. Raises ModelError."""
        ...

    def embed_query_image(self, settings: PipelineSettings, content: bytes) -> npt.NDArray[np.float32]:
        """The vector (dimensions,) of an image to be looked for: a whole file.

        Raises ModelError, and ConfigurationError for what is no image or no pipeline of images.
        """
        ...


AWS_HOSTS: Mapping[str, type[AwsAccount]] = {
    "bedrock": BedrockAccount,
    "sagemaker": SageMakerAccount,
    "aws_batch": AwsBatchAccount,
}
"""Types whose work goes on at a service: the control loop asks about their jobs."""

EXECUTOR_HOSTS: Mapping[str, type[ExecutorHost]] = {
    "gpu": GpuMachine,
    "ray": RayCluster,
    "gateway": ModelServers,
    **AWS_HOSTS,
}


def create_host(kind: str) -> ExecutorHost:
    """The host of a type with its defaults. Raises ConfigurationError for an unknown type."""
    if kind not in EXECUTOR_HOSTS:
        raise ConfigurationError(f"executor.type: {kind!r} is not known; use {', '.join(EXECUTOR_HOSTS)}")
    return EXECUTOR_HOSTS[kind]()
