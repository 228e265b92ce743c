"""The AWS account as SageMaker's executor reaches it, and what it has learnt of quotas."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from batch_assets.errors import ConfigurationError
from batch_assets.executors.aws.account import AwsAccount
from batch_assets.executors.sagemaker.quotas import read_instances
from batch_assets.settings.pipeline import PipelineSettings

if TYPE_CHECKING:
    from batch_assets.executors.sagemaker.executor import SageMakerExecutor

QUOTA_SECONDS = 3600.0


@dataclass
class SageMakerAccount(AwsAccount):
    """SageMaker in one account."""

    _instances: dict[tuple[str, str], tuple[float, int | None]] = field(default_factory=dict, repr=False)

    def executor(self, settings: PipelineSettings) -> "SageMakerExecutor":
        """The executor of one pipeline in this account. Raises ConfigurationError."""
        from batch_assets.executors.sagemaker.executor import SageMakerExecutor

        return SageMakerExecutor(settings, self)

    def embed_query(self, settings: PipelineSettings, text: str) -> npt.NDArray[np.float32]:
        """Raises ConfigurationError: batch jobs answer no single text."""
        raise ConfigurationError(
            f"pipeline {settings.name} embeds by SageMaker batch transform jobs, which start instances for minutes and "
            "answer no single text; embed the query with the same model elsewhere, and compare it with the vectors "
            "that `merged/` of the output root holds"
        )

    def instances(self, instance_type: str, region: str) -> int | None:
        """The quota of instances for transform jobs, asked for once an hour; None where it cannot be read."""
        with self._lock:
            known = self._instances.get((instance_type, region))
            if known is None or time.monotonic() - known[0] > QUOTA_SECONDS:
                client = self.client("service-quotas", region)
                known = (time.monotonic(), read_instances(client, instance_type))
                self._instances[instance_type, region] = known
            return known[1]
