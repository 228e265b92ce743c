"""The AWS account as Bedrock's executor reaches it: what it shares with others, and what it has learnt of quotas.

What is asked of the service is in the files beside this one; AWS errors are put in words in `service_errors.py`.
"""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from batch_assets.executors.aws.account import AwsAccount
from batch_assets.executors.bedrock.on_demand import embed_text
from batch_assets.executors.bedrock.quotas import Quotas, read_quotas
from batch_assets.settings.pipeline import PipelineSettings

if TYPE_CHECKING:
    from batch_assets.executors.bedrock.executor import BedrockExecutor

QUOTA_SECONDS = 3600.0


@dataclass
class BedrockAccount(AwsAccount):
    """Bedrock in one account."""

    _quotas: dict[tuple[str, str], tuple[float, Quotas]] = field(default_factory=dict, repr=False)

    def executor(self, settings: PipelineSettings) -> "BedrockExecutor":
        """The executor of one pipeline in this account. Raises ConfigurationError."""
        from batch_assets.executors.bedrock.executor import BedrockExecutor

        return BedrockExecutor(settings, self)

    def embed_query(self, settings: PipelineSettings, text: str) -> npt.NDArray[np.float32]:
        """The vector (dimensions,) of one text, by a call of the model. Raises SubmissionRefused, StorageError."""
        executor = self.executor(settings)
        return embed_text(executor, self.client("bedrock-runtime", executor.region), text)

    def quotas(self, model_id: str, region: str) -> Quotas:
        """What the account may do with the model; asked for once an hour."""
        with self._lock:
            known = self._quotas.get((model_id, region))
            if known is None or time.monotonic() - known[0] > QUOTA_SECONDS:
                known = (time.monotonic(), read_quotas(self.client("service-quotas", region), model_id))
                self._quotas[model_id, region] = known
            return known[1]
