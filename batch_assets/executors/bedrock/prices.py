"""What models cost: the table `prices.yaml`, and a pipeline's own prices in its place."""

import functools
from dataclasses import dataclass
from datetime import date
from importlib import resources
from typing import Annotated

import pydantic
import yaml

from batch_assets.executors.bedrock.model_ids import base_model_id, model_name
from batch_assets.settings.prices import TokenPrices

_USD = Annotated[float, pydantic.Field(ge=0)]
_BATCH_SHARE = 0.5  # of the on-demand price: what Bedrock takes for every model that it runs in batches


@dataclass(frozen=True)
class Price:
    """USD per million tokens."""

    batch_input: float
    batch_output: float
    on_demand_input: float
    on_demand_output: float

    def cost(self, input_tokens: int, output_tokens: int, *, on_demand: bool = False) -> float:
        """USD for so many tokens."""
        if on_demand:
            return (input_tokens * self.on_demand_input + output_tokens * self.on_demand_output) / 1e6
        return (input_tokens * self.batch_input + output_tokens * self.batch_output) / 1e6


class PriceTable(pydantic.BaseModel):
    """On-demand prices (input, output) by how models' ids begin, as they were on `date` in us-east-1."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    date: date
    models: dict[str, tuple[_USD, _USD]]


@functools.cache
def price_table() -> PriceTable:
    """The package's table."""
    text = resources.files("batch_assets.executors.bedrock").joinpath("prices.yaml").read_text("utf-8")
    return PriceTable.model_validate(yaml.safe_load(text))


def price_of(model_id: str, own: TokenPrices | None = None) -> Price | None:
    """The price of a model (id, inference profile or ARN); None where the table has none.

    A profile's own line goes before the model's, a longer line before a shorter one. `own` are
    batch prices that the pipeline names, and half of what it pays on demand.
    """
    if own is not None:
        return Price(own.input, own.output, own.input / _BATCH_SHARE, own.output / _BATCH_SHARE)
    models = price_table().models
    for name in (model_name(model_id), base_model_id(model_id)):
        found = max((prefix for prefix in models if name.startswith(prefix)), key=len, default=None)
        if found is not None:
            taken, given = models[found]
            return Price(taken * _BATCH_SHARE, given * _BATCH_SHARE, taken, given)
    return None
