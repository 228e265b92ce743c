"""The AWS account as the executor aws_batch reaches it; a query's vector is computed on this machine."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from batch_assets.executors.aws.account import AwsAccount
from batch_assets.executors.aws_batch.executor import AwsBatchExecutor
from batch_assets.executors.gpu import GpuMachine
from batch_assets.settings.in_place import GpuExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings


@dataclass
class AwsBatchAccount(AwsAccount):
    """AWS Batch in one account."""

    _machine: GpuMachine = field(default_factory=lambda: GpuMachine(device="cpu"), repr=False)

    def executor(self, settings: PipelineSettings) -> AwsBatchExecutor:
        """The executor of one pipeline in this account. Raises ConfigurationError."""
        return AwsBatchExecutor(settings, self)

    def embed_query(self, settings: PipelineSettings, text: str) -> npt.NDArray[np.float32]:
        """The vector (dimensions,) of one text, by this machine's CPU. Raises ModelError."""
        return self._machine.embed_query(_on_this_machine(settings), text)

    def embed_query_image(self, settings: PipelineSettings, content: bytes) -> npt.NDArray[np.float32]:
        """The vector (dimensions,) of one image, a whole file, by this machine's CPU. Raises ModelError."""
        return self._machine.embed_query_image(_on_this_machine(settings), content)


def _on_this_machine(settings: PipelineSettings) -> PipelineSettings:
    return settings.model_copy(update={"executor": GpuExecutorSettings()})
