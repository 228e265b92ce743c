"""Dagster resources: the ledger and the hosts of executors, seen in the UI, replaced in tests.

Each only builds a plain object of a lower layer; no logic here.
"""

import dagster as dg
from pydantic import Field

from batch_assets.executors.gpu import GpuMachine
from batch_assets.home import ledger_url
from batch_assets.ledger.ledger import Ledger


class LedgerResource(dg.ConfigurableResource):
    """The database that says what became of every shard, job and submission."""

    url: str = Field(
        default="",
        description="SQLite or PostgreSQL URL; by default $BATCH_ASSETS_LEDGER_URL, else a file under "
        "the Dagster home. Take a URL with a password from the environment: dg.EnvVar.",
    )

    def create_resource(self, context: dg.InitResourceContext) -> Ledger:
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


def default_resources() -> dict[str, dg.ConfigurableResource]:
    """The resources that the assets and sensors ask for, by key: `ledger` and each executor's type."""
    return {"ledger": LedgerResource(), "gpu": GpuExecutorResource()}
