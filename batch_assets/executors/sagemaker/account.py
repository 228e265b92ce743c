"""The AWS account as SageMaker's executors are made in it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batch_assets.errors import ConfigurationError
from batch_assets.executors.aws.account import AwsAccount
from batch_assets.executors.sagemaker.executor import SageMakerExecutor
from batch_assets.settings.pipeline import PipelineSettings


@dataclass
class SageMakerAccount(AwsAccount):
    """SageMaker in one account."""

    def executor(self, settings: PipelineSettings) -> SageMakerExecutor:
        """The executor of one pipeline in this account. Raises ConfigurationError."""
        return SageMakerExecutor(settings, self)

    def embed_query(self, settings: PipelineSettings, text: str) -> npt.NDArray[np.float32]:
        """Raises ConfigurationError: batch jobs answer no single text."""
        raise ConfigurationError(
            f"pipeline {settings.name} embeds by SageMaker batch transform jobs, which start instances for minutes and "
            "answer no single text; embed the query with the same model elsewhere, and compare it with the vectors "
            "that `merged/` of the output root holds"
        )
