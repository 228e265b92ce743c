"""The executor gateway: a model that somebody serves over HTTP, in the words of OpenAI's API."""

import re
from typing import Annotated, Any, ClassVar, Literal

import pydantic
from pydantic import Field

from batch_assets.settings.executor_base import ExecutorSettings
from batch_assets.settings.http_urls import ServerURL
from batch_assets.settings.prices import TokenPrices

MAX_ATTEMPTS = 5
OURS = ("input", "messages", "model", "prompt", "stream", "encoding_format", "dimensions", "n")
"""Fields of a call that the pipeline itself writes."""


class GatewayExecutorSettings(ExecutorSettings):
    """Any server that answers like OpenAI's API: vLLM, SGLang, TEI, llm-d, a provider. `model.id` names its model."""

    in_place: ClassVar[bool] = True
    acts_elsewhere: ClassVar[bool] = True
    type: Literal["gateway"] = Field(
        description="What computes: gateway, a server that answers like OpenAI's API."
    )
    base_url: ServerURL = Field(description="The server, such as http://127.0.0.1:8000, with or without /v1.")
    path: str | None = Field(
        default=None,
        description="Path of the calls; by default /v1/embeddings, or /v1/chat/completions for task generate. "
        "/v1/completions is called with a prompt in place of messages.",
    )
    api_key_env: str | None = Field(
        default=None,
        pattern="[A-Za-z_][A-Za-z0-9_]*",
        description="Environment variable that holds the API key, sent as a bearer token.",
    )
    concurrency: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto",
        description="Calls in flight at the server, of all pipelines of a process together; auto finds how many it "
        "takes, by what it delivers and refuses.",
    )
    max_concurrency: int = Field(default=1024, ge=1, description="With auto: calls in flight, at most.")
    inputs_per_call: Annotated[int, Field(ge=1, le=2048)] | Literal["auto"] = Field(
        default="auto",
        description="Texts in one call for embeddings; auto is 32. An answer takes a call of its own.",
    )
    timeout_seconds: float = Field(default=300, gt=0, description="After so long a call is given up.")
    inference_objective: str | None = Field(
        default=None,
        description="Sent as x-gateway-inference-objective, by which llm-d's gateway gives priorities.",
    )
    headers: dict[str, str] = Field(
        default_factory=dict,
        description="Further headers of each call. No secrets: they are stored and shown.",
    )
    body: dict[str, Any] = Field(
        default_factory=dict,
        description="Further fields of each call, such as {max_tokens: 100, temperature: 0}. An answer is checked "
        "against the schema in response_format.",
    )
    system_prompt: str | None = Field(
        default=None, description="The system message before each prompt, for task generate."
    )
    too_long: Literal["truncate", "reject"] = Field(
        default="truncate",
        description="What becomes of a text that is longer than the model takes. A prompt is never cut: its record "
        "fails.",
    )
    requests_per_minute: float | None = Field(
        default=None, gt=0, description="Calls per minute, at most; by default no limit."
    )
    tokens_per_minute: float | None = Field(
        default=None, gt=0, description="Tokens per minute, in and out, at most; by default no limit."
    )
    max_attempts: int = Field(
        default=MAX_ATTEMPTS,
        ge=1,
        description="How often a record is sent before it counts as failed, and a shard is begun before it is "
        "exhausted. Where the server only asks to slow down, or is away, that costs no attempt.",
    )
    budget_usd: float | None = Field(
        default=None,
        gt=0,
        description="The pipeline spends no more than this, by prices; by default there is no limit.",
    )
    prices: TokenPrices | None = Field(
        default=None,
        description="What the server's owner takes for tokens; by default nothing is known of that.",
    )
    reference_model: str | None = Field(
        default=None,
        description="The served model as it is to be had here, a model id of the Hugging Face hub or a local "
        "directory: then parity compares a sample with it.",
    )

    @pydantic.field_validator("path")
    @classmethod
    def _a_path(cls, path: str | None) -> str | None:
        if path is not None and not re.fullmatch(r"/[^?#\s]+", path):
            raise ValueError("write a path such as /v1/embeddings; the server stands in base_url")
        return path

    @pydantic.field_validator("body")
    @classmethod
    def _not_ours(cls, body: dict[str, Any]) -> dict[str, Any]:
        if taken := [name for name in OURS if name in body]:
            raise ValueError(f"{', '.join(taken)}: the pipeline writes these itself; leave them out")
        return body

    @pydantic.field_validator("headers")
    @classmethod
    def _no_secrets(cls, headers: dict[str, str]) -> dict[str, str]:
        if secret := [name for name in headers if name.lower() in ("authorization", "x-api-key", "cookie")]:
            raise ValueError(
                f"{secret[0]} is a secret, and headers are stored; name its variable in api_key_env"
            )
        return headers

    @pydantic.model_validator(mode="after")
    def _budget_has_prices(self) -> "GatewayExecutorSettings":
        if self.budget_usd is not None and self.prices is None:
            raise ValueError(
                "budget_usd: without prices nothing is known of dollars; name them in executor.prices"
            )
        return self
