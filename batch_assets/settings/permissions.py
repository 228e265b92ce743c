"""What only a person on this machine may allow a pipeline, and never what is read from an output root.

A root may be anybody's: whoever wrote its `pipeline.json` must not decide that code runs here, that
this network is reached, or which cluster is joined.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batch_assets.settings.in_place import RayExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings


@dataclass(frozen=True)
class Permissions:
    """What the command line allows by name."""

    trust_remote_code: bool = False
    allow_private_addresses: bool = False

    @classmethod
    def of(cls, flags: Mapping[str, Any]) -> "Permissions":
        """Those among a command's flags."""
        return cls(**{name: bool(flags.get(name)) for name in cls.__dataclass_fields__})

    def given_to(self, settings: PipelineSettings) -> PipelineSettings:
        """`settings` with these permissions beside those that they have."""
        source, model = settings.source, settings.model
        private = source.allow_private_addresses or self.allow_private_addresses
        trusted = model.trust_remote_code or self.trust_remote_code
        return settings.model_copy(
            update={
                "source": source.model_copy(update={"allow_private_addresses": private}),
                "model": model.model_copy(update={"trust_remote_code": trusted}),
            }
        )


def without_permissions(settings: PipelineSettings) -> PipelineSettings:
    """`settings` as data: nothing in them runs a model's code, reaches private addresses, or joins a Ray cluster.

    A Ray cluster at another address is a permission too: whoever joins it runs what it sends.
    """
    executor = settings.executor
    if isinstance(executor, RayExecutorSettings):
        own = RayExecutorSettings.model_fields["address"].default
        executor = executor.model_copy(update={"address": own})
    source = settings.source.model_copy(update={"allow_private_addresses": False})
    model = settings.model.model_copy(update={"trust_remote_code": False})
    return settings.model_copy(update={"source": source, "model": model, "executor": executor})
