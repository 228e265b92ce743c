"""The AWS account as Bedrock's executors are made in it; a query's vector is computed by a call of the model."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batch_assets.executors.aws.account import AwsAccount
from batch_assets.executors.bedrock.executor import BedrockExecutor
from batch_assets.executors.bedrock.on_demand import embed_text
from batch_assets.settings.pipeline import PipelineSettings


@dataclass
class BedrockAccount(AwsAccount):
    """Bedrock in one account."""

    def executor(self, settings: PipelineSettings) -> BedrockExecutor:
        """The executor of one pipeline in this account. Raises ConfigurationError."""
        return BedrockExecutor(settings, self)

    def embed_query(self, settings: PipelineSettings, text: str) -> npt.NDArray[np.float32]:
        """The vector (dimensions,) of one text, by a call of the model. Raises SubmissionRefused, StorageError."""
        executor = self.executor(settings)
        return embed_text(executor, self.client("bedrock-runtime", executor.region), text)
