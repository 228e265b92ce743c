"""The queue worker: which queues, which server, and what lets messages pass. The fields of dispatch.yaml."""

import re
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from batch_assets.settings.base import Settings
from batch_assets.settings.gates import GateSettings
from batch_assets.settings.http_urls import ServerURL


class QueueSettings(Settings):
    """One queue."""

    url: str = Field(description="Such as local:requests or redis://localhost:6379/0?queue=NAME.")
    results: str | None = Field(default=None, description="Queue of its results; by default NAME-results.")
    pool: str | None = Field(
        default=None, description="The pool that sends its messages; by default the first."
    )
    weight: float = Field(
        default=1.0, gt=0, description="Its share among the queues of a pool, where drawn by lot."
    )
    tier: int = Field(default=0, description="With tier-priority: lower ones are emptied first.")
    gates: list[GateSettings] = Field(default_factory=list, description="What holds its messages back.")


class PoolSettings(Settings):
    """One model server, and what may go to it."""

    name: str = Field(default="default", pattern=r"^[a-z][a-z0-9_-]{0,62}$", description="As queues name it.")
    endpoint: ServerURL | None = Field(default=None, description="Base URL; by default that of the worker.")
    concurrency: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        default=None, description="Calls in flight; by default that of the worker."
    )
    inference_objective: str | None = Field(default=None, description="By default that of the worker.")
    gates: list[GateSettings] = Field(default_factory=list, description="What holds all its messages back.")


class DispatchSettings(Settings):
    """A worker: `endpoint` and `queues`, the rest has defaults. The flags of the command have the same names."""

    endpoint: ServerURL | None = Field(default=None, description="Base URL of the model server.")
    queues: list[QueueSettings] = Field(
        default_factory=lambda: [QueueSettings(url="local:requests")],
        min_length=1,
        description="Where messages come from: URLs, or objects with more about each.",
    )
    pools: list[PoolSettings] = Field(
        default_factory=lambda: [PoolSettings()],
        min_length=1,
        description="Servers, where there are several.",
    )
    results: str | None = Field(
        default=None, description="Queue of all results; by default one beside each queue."
    )
    concurrency: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="Calls in flight; auto finds how many the server takes."
    )
    max_concurrency: int = Field(default=1024, ge=1, description="With auto: calls in flight, at most.")
    request_timeout: float = Field(default=300.0, gt=0, description="Seconds after which a call is given up.")
    inference_objective: str | None = Field(
        default=None,
        description="Sent as x-gateway-inference-objective, by which llm-d's gateway gives priorities.",
    )
    api_key_env: str | None = Field(
        default=None,
        pattern="^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable that holds the server's API key, sent as a bearer token.",
    )
    request_merge_policy: Literal["random-robin", "weighted", "tier-priority", "earliest-deadline"] = Field(
        default="random-robin", description="Which of several queues the next messages come from."
    )
    gates: list[GateSettings] = Field(
        default_factory=list, description="What holds messages of all queues and pools back."
    )
    lease_seconds: float = Field(
        default=30.0, ge=1, description="So long a claim holds; renewed while in flight."
    )
    drain_timeout: float = Field(
        default=20.0, ge=0, description="Seconds in which calls may end after SIGTERM or Ctrl-C."
    )
    results_max: int = Field(default=100_000, ge=1, description="Unread results at which claims stop.")
    listen: str | None = Field(
        default=None, description="HOST:PORT for /metrics, /healthz and /readyz; by default none."
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _short_forms(cls, given: Any) -> Any:
        """`queue` for `queues`, and URLs in place of objects."""
        if not isinstance(given, dict):
            return given
        fields: dict[str, Any] = dict(given)  # pyright: ignore
        if "queue" in fields:
            if "queues" in fields:
                raise ValueError("queue and queues are the same; leave one out")
            fields["queues"] = fields.pop("queue")
        queues = fields.get("queues")
        if isinstance(queues, str | dict):
            queues = [queues]
        if isinstance(queues, list):
            fields["queues"] = [{"url": each} if isinstance(each, str) else each for each in queues]  # pyright: ignore
        return fields

    @pydantic.field_validator("listen")
    @classmethod
    def _an_address(cls, address: str | None) -> str | None:
        if address is not None and not re.fullmatch(r"[^\s]*:\d{1,5}", address):
            raise ValueError("write HOST:PORT, such as 127.0.0.1:9090")
        return address

    @pydantic.model_validator(mode="after")
    def _pools_are_there(self) -> "DispatchSettings":
        names = [pool.name for pool in self.pools]
        if len(set(names)) < len(names):
            raise ValueError("pools: two have the same name")
        for pool in self.pools:
            if pool.endpoint is None and self.endpoint is None:
                raise ValueError("endpoint: name the model server, such as http://127.0.0.1:8000")
        for queue in self.queues:
            if queue.pool is not None and queue.pool not in names:
                raise ValueError(f"queues: pool {queue.pool!r} is not among pools ({', '.join(names)})")
        urls = [queue.url for queue in self.queues]
        if len(set(urls)) < len(urls):
            raise ValueError("queues: one stands there twice")
        return self
