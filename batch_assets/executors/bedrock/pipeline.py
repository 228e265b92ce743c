"""One pipeline as Bedrock is asked for it, by its settings alone: its model's family and price, its fingerprint.

Nothing is asked of the service; that, and what an account may do, is in `executor.py`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from batch_assets.executors.aws.staging import Staged
from batch_assets.executors.bedrock.families.base import Family
from batch_assets.executors.bedrock.families.registry import family_for
from batch_assets.executors.bedrock.model_ids import model_name
from batch_assets.executors.bedrock.prices import Price, price_of
from batch_assets.settings.bedrock import BedrockExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings

VERSION = 1
"""Raised when requests are rendered otherwise, so that the same text gives another vector."""


@dataclass
class BedrockPipeline(Staged):
    """What requests are made of, and results read by."""

    settings: PipelineSettings
    service_name = "Bedrock"

    @cached_property
    def options(self) -> BedrockExecutorSettings:
        assert isinstance(self.settings.executor, BedrockExecutorSettings)
        return self.settings.executor

    @cached_property
    def family(self) -> Family:
        """How this model is asked. Raises ConfigurationError for a model or a setting that it does not have."""
        return family_for(self.settings)

    @cached_property
    def price(self) -> Price | None:
        return price_of(self.options.model_id, self.options.prices)

    def cost(self, input_tokens: int, output_tokens: int, *, on_demand: bool = False) -> float | None:
        """USD for so many tokens; None where no price is known."""
        price = self.price
        return None if price is None else price.cost(input_tokens, output_tokens, on_demand=on_demand)

    def fingerprint_parts(self) -> dict[str, Any]:
        source = self.settings.source
        return {
            "version": VERSION,
            "model": model_name(self.options.model_id),
            "request": self.family.options(),
            "prompt": self.settings.model.prompt,
            "normalize": self.settings.model.normalize,
            "too_long": self.options.too_long,
            "text": source.text_template or [*source.text_columns],
            "stored": self.settings.output.dtype,
        }
