"""Gates of the queue worker: what lets messages pass to the server, or holds them back."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from batch_assets.settings.base import Settings, by_type
from batch_assets.settings.http_urls import PageURL

Share = Annotated[float, Field(ge=0, le=1)]


class ControllerGateSettings(Settings):
    """What the server takes, found by what it delivers and refuses. It is always there, named or not."""

    type: Literal["controller"]


class ConstantGateSettings(Settings):
    """A fixed share of that."""

    type: Literal["constant"]
    share: Share = Field(default=1.0, description="From 0, nothing passes, to 1, all that the server takes.")


class ConcurrencyGateSettings(Settings):
    """So many messages at a time, of this worker."""

    type: Literal["concurrency"]
    limit: int = Field(ge=1, description="Messages under way, at most.")


class SaturationGateSettings(Settings):
    """How full the server is, by its own metrics."""

    type: Literal["saturation"]
    url: PageURL | None = Field(
        default=None, description="Where the metrics are; by default /metrics of the endpoint."
    )
    metric: str | None = Field(
        default=None, description="Name of a metric; by default those of vLLM and SGLang are looked for."
    )
    labels: dict[str, str] = Field(default_factory=dict, description="Labels that its samples must have.")
    maximum: float | None = Field(
        default=None, gt=0, description="A value at which the server is full; by default 1."
    )
    threshold: float = Field(default=0.8, gt=0, le=1, description="Nothing passes from this share of it on.")
    every_seconds: float = Field(default=1.0, gt=0, description="Between two readings.")


class PrometheusGateSettings(Settings):
    """What a query to a Prometheus returns is the share that passes."""

    type: Literal["prometheus-query"]
    url: PageURL = Field(description="The Prometheus server, such as http://prometheus:9090.")
    query: str = Field(description="PromQL with one value from 0 to 1.")
    every_seconds: float = Field(default=5.0, gt=0, description="Between two queries.")


class QuotaGateSettings(Settings):
    """No tenant has more than so many messages under way, or per window, of one worker."""

    type: Literal["quota"]
    limit: float = Field(
        gt=0,
        description="Messages at a time; with window_seconds a burst, and what refills in each window.",
    )
    field: str = Field(
        default="metadata.userid",
        pattern=r"^metadata\.[^.]+$",
        description="By what tenants are told apart. A message without it belongs to none, and passes.",
    )
    window_seconds: float | None = Field(
        default=None, gt=0, description="With it the limit is a rate; without it a number at a time."
    )


GATES: dict[str, type[Settings]] = {
    "controller": ControllerGateSettings,
    "constant": ConstantGateSettings,
    "concurrency": ConcurrencyGateSettings,
    "saturation": SaturationGateSettings,
    "prometheus-query": PrometheusGateSettings,
    "quota": QuotaGateSettings,
}


GateSettings = Annotated[
    Annotated[ControllerGateSettings, pydantic.Tag("controller")]
    | Annotated[ConstantGateSettings, pydantic.Tag("constant")]
    | Annotated[ConcurrencyGateSettings, pydantic.Tag("concurrency")]
    | Annotated[SaturationGateSettings, pydantic.Tag("saturation")]
    | Annotated[PrometheusGateSettings, pydantic.Tag("prometheus-query")]
    | Annotated[QuotaGateSettings, pydantic.Tag("quota")],
    by_type(GATES),
]
"""An unknown type is refused: a gate that is always open would let everything pass."""
