"""Dagster resources: the ledger, the hosts of executors and notifications, seen in the UI, replaced in tests.

Each only builds a plain object of a lower layer; no logic here.
"""

import contextlib
from collections.abc import Sequence
from typing import Any, ClassVar

import dagster as dg
from pydantic import Field

from batch_assets.executors.aws.account import AwsAccount, shared_account
from batch_assets.executors.aws_batch.account import AwsBatchAccount
from batch_assets.executors.bedrock.account import BedrockAccount
from batch_assets.executors.gateway.servers import ModelServers
from batch_assets.executors.gpu import GpuMachine
from batch_assets.executors.ray.cluster import RayCluster
from batch_assets.executors.ray.connection import AUTO
from batch_assets.executors.registry import ExecutorHost
from batch_assets.executors.sagemaker.account import SageMakerAccount
from batch_assets.home import ledger_url
from batch_assets.ledger.ledger import Ledger
from batch_assets.notifications.base import Notifier
from batch_assets.notifications.registry import create_notifiers
from batch_assets.patience import in_a_tick
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.settings.project import LEDGER, NOTIFICATIONS, executor_key


class LedgerResource(dg.ConfigurableResource):
    """The database that says what became of every shard, job and submission."""

    url: str = Field(
        default="",
        description="SQLite or PostgreSQL URL; by default $BATCH_ASSETS_LEDGER_URL, else a file under "
        "the Dagster home. Take a URL with a password from the environment: dg.EnvVar.",
    )

    def create_resource(self, context: dg.InitResourceContext) -> Ledger:
        # Without a run it is a sensor's tick that opens it.
        with in_a_tick() if context.run is None else contextlib.nullcontext():
            return Ledger.open(self.url or ledger_url())


class GpuExecutorResource(dg.ConfigurableResource):
    """This machine's GPU, or its CPU where there is none, and the model loaded on it."""

    device: str = Field(default="auto", description="For pipelines that say auto: auto, cpu, cuda or cuda:N.")
    batch_tokens: int | None = Field(
        default=None,
        description="For pipelines that say auto: tokens in a batch; by default it fits the device.",
    )

    def create_resource(self, context: dg.InitResourceContext) -> GpuMachine:
        return GpuMachine(device=self.device, batch_tokens=self.batch_tokens)


class RayResource(dg.ConfigurableResource):
    """A Ray cluster, or a Ray of this machine, and its workers with the model loaded."""

    address: str = Field(
        default="auto",
        description="For pipelines that say auto: a cluster's address such as ray://head:10001, local, or auto.",
    )

    def create_resource(self, context: dg.InitResourceContext) -> RayCluster:
        return RayCluster(address=self.address)


class GatewayResource(dg.ConfigurableResource):
    """The connections to model servers, each with as many calls in flight as it takes."""

    def create_resource(self, context: dg.InitResourceContext) -> ModelServers:
        return ModelServers()


def executor_host(resource: Any) -> ExecutorHost:
    """The host that a resource is; of dagster-ray's, the cluster that it has started, joined by it or not."""
    if hasattr(resource, "executor"):
        return resource
    address = None if resource.connected else resource.ray_address
    return RayCluster(address=address or AUTO)


class AwsResource(dg.ConfigurableResource):
    """The AWS account that runs the jobs of one type of executor, by AWS's own chain of credentials."""

    host: ClassVar[type[AwsAccount]]
    region: str = Field(
        default="", description="For pipelines that name none; by default that of the environment."
    )

    def create_resource(self, context: dg.InitResourceContext) -> AwsAccount:
        return shared_account(self.host, self.region or None)


class BedrockResource(AwsResource):
    """The AWS account that runs Amazon Bedrock batch inference jobs, by AWS's own chain of credentials."""

    host = BedrockAccount


class SageMakerResource(AwsResource):
    """The AWS account that runs SageMaker Batch Transform jobs, by AWS's own chain of credentials."""

    host = SageMakerAccount


class AwsBatchResource(AwsResource):
    """The AWS account that runs AWS Batch array jobs, by AWS's own chain of credentials."""

    host = AwsBatchAccount


class NotificationsResource(dg.ConfigurableResource):
    """Where a person is told of failed jobs and runs, of refusals and spent budgets."""

    targets: str = Field(
        default="",
        description="Targets with spaces between: log, sns:<topic ARN>, slack:<URL>, webhook:<URL>; by default "
        "$BATCH_ASSETS_NOTIFY, else log. Take URLs from the environment, since they are secrets: dg.EnvVar.",
    )

    def create_resource(self, context: dg.InitResourceContext) -> Sequence[Notifier]:
        return create_notifiers(self.targets)


def default_resources() -> dict[str, dg.ConfigurableResource]:
    """The resources that the assets and sensors ask for, by key."""
    return {
        LEDGER: LedgerResource(),
        NOTIFICATIONS: NotificationsResource(),
        executor_key("gpu"): GpuExecutorResource(),
        executor_key("ray"): RayResource(),
        executor_key("gateway"): GatewayResource(),
        executor_key("bedrock"): BedrockResource(),
        executor_key("sagemaker"): SageMakerResource(),
        executor_key("aws_batch"): AwsBatchResource(),
    }


Context = dg.AssetExecutionContext | dg.AssetCheckExecutionContext


def ledger_of(context: Context) -> Ledger:
    """The ledger of the asset or check that runs."""
    return getattr(context.resources, LEDGER)


def notifiers_of(context: Context) -> Sequence[Notifier]:
    """Those whom the asset or check that runs tells."""
    return getattr(context.resources, NOTIFICATIONS)


def host_of(context: Context, settings: PipelineSettings) -> ExecutorHost:
    """The host of the pipeline's executor."""
    return executor_host(getattr(context.resources, executor_key(settings.executor.type)))
