"""The AWS account as one process reaches it: its clients, its region, and what it has learnt of quotas.

What is asked of the service is in the files beside this one; AWS errors are put in words in `service_errors.py`.
"""

import functools
import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from batch_assets.errors import ConfigurationError
from batch_assets.executors.base import Progress
from batch_assets.executors.bedrock.on_demand import embed_text
from batch_assets.executors.bedrock.quotas import Quotas, read_quotas
from batch_assets.settings.bedrock import BedrockExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings

if TYPE_CHECKING:
    from batch_assets.executors.bedrock.executor import BedrockExecutor

CONNECT_SECONDS, READ_SECONDS = 10, 60
CONNECTIONS = 16
QUOTA_SECONDS = 3600.0


@dataclass
class BedrockAccount:
    """Clients of one account, made once. `region` is for pipelines that name none."""

    region: str | None = None
    progress: Progress | None = None
    _clients: dict[tuple[str, str, int], Any] = field(default_factory=dict, repr=False)
    _quotas: dict[tuple[str, str], tuple[float, Quotas]] = field(default_factory=dict, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def executor(self, settings: PipelineSettings) -> "BedrockExecutor":
        """The executor of one pipeline in this account. Raises ConfigurationError."""
        from batch_assets.executors.bedrock.executor import BedrockExecutor

        return BedrockExecutor(settings, self)

    def embed_query(self, settings: PipelineSettings, text: str) -> npt.NDArray[np.float32]:
        """The vector (dimensions,) of one text, by a call of the model. Raises SubmissionRefused, StorageError."""
        executor = self.executor(settings)
        return embed_text(executor, self.client("bedrock-runtime", executor.region), text)

    def embed_query_image(self, settings: PipelineSettings, content: bytes) -> npt.NDArray[np.float32]:
        """Raises ConfigurationError: texts are all that is embedded here."""
        raise ConfigurationError(
            f"pipeline {settings.name} embeds texts: look for a text, or name a pipeline of images"
        )

    def region_of(self, settings: BedrockExecutorSettings) -> str:
        """The pipeline's region, else this account's, else the environment's. Raises ConfigurationError."""
        # boto3 itself looks at AWS_DEFAULT_REGION alone.
        region = settings.region or self.region or os.environ.get("AWS_REGION")
        if not region:
            import boto3

            region = boto3.Session().region_name
        if not region:
            raise ConfigurationError(
                "executor.region: no region is named and the environment has none; write executor.region: us-east-1"
            )
        return region

    def client(self, service: str, region: str, tries: int = 3) -> Any:
        """A boto3 client that tries again by itself what AWS says may be tried again, `tries` times in all."""
        with self._lock:
            if (service, region, tries) not in self._clients:
                self._clients[service, region, tries] = _client(service, region, tries)
            return self._clients[service, region, tries]

    def quotas(self, model_id: str, region: str) -> Quotas:
        """What the account may do with the model; asked for once an hour."""
        with self._lock:
            known = self._quotas.get((model_id, region))
            if known is None or time.monotonic() - known[0] > QUOTA_SECONDS:
                known = (time.monotonic(), read_quotas(self.client("service-quotas", region), model_id))
                self._quotas[model_id, region] = known
            return known[1]


def shared_account(region: str | None) -> BedrockAccount:
    """One account for the whole process, as long as its environment stays the same.

    Dagster makes its resources anew for every tick; clients and quotas are not to be.
    """
    return _shared_account(region, tuple(os.environ.get(name) for name in _ENVIRONMENT))


_ENVIRONMENT = ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_REGION", "AWS_DEFAULT_REGION")


@functools.cache
def _shared_account(region: str | None, environment: tuple[str | None, ...]) -> BedrockAccount:
    return BedrockAccount(region)


def _client(service: str, region: str, tries: int) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "total_max_attempts": tries},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=CONNECTIONS,
    )
    return boto3.client(service, region_name=region, config=config)
