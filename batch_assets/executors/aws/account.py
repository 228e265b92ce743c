"""The AWS account as one process reaches it: its clients, its region, and what it has learnt of quotas.

What is asked of a service is in that service's folder.
"""

import functools
import os
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from batch_assets.errors import ConfigurationError
from batch_assets.executors.base import Progress
from batch_assets.settings.executors import ServiceSettings
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.storage.credentials import aws_session

CONNECT_SECONDS, READ_SECONDS = 10, 60
CONNECTIONS = 16
REMEMBERED_SECONDS = 3600.0
Found = TypeVar("Found")


@dataclass
class AwsAccount:
    """Clients of one account, made once. `region` is for pipelines that name none."""

    region: str | None = None
    progress: Progress | None = None
    _clients: dict[tuple[str, str, int], Any] = field(default_factory=dict, repr=False)
    _remembered: dict[Hashable, tuple[float, Any]] = field(default_factory=dict, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def region_of(self, settings: ServiceSettings) -> str:
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

    def remembered(self, what: Hashable, read: Callable[[], Found]) -> Found:
        """What `read` says of `what`, such as quotas; it is asked again after an hour."""
        with self._lock:
            known = self._remembered.get(what)
            if known is None or time.monotonic() - known[0] > REMEMBERED_SECONDS:
                known = self._remembered[what] = (time.monotonic(), read())
            return known[1]

    def embed_query_image(self, settings: PipelineSettings, content: bytes) -> npt.NDArray[np.float32]:
        """Raises ConfigurationError: texts are all that is embedded here."""
        raise ConfigurationError(
            f"pipeline {settings.name} embeds texts: look for a text, or name a pipeline of images"
        )


Account = TypeVar("Account", bound=AwsAccount)
_ENVIRONMENT = ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_REGION", "AWS_DEFAULT_REGION")


def shared_account(kind: type[Account], region: str | None) -> Account:
    """One account of a kind for the whole process, as long as its environment stays the same.

    Dagster makes its resources anew for every tick; clients and quotas are not to be.
    """
    return _shared_account(kind, region, tuple(os.environ.get(name) for name in _ENVIRONMENT))


@functools.cache
def _shared_account(kind: type[Account], region: str | None, environment: tuple[str | None, ...]) -> Account:
    return kind(region)


def _client(service: str, region: str, tries: int) -> Any:
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "total_max_attempts": tries},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=CONNECTIONS,
    )
    return aws_session().client(service, region_name=region, config=config)
