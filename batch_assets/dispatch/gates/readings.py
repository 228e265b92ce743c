"""What gates read: how full a server is by its own /metrics, or whatever a query to Prometheus returns."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from batch_assets.dispatch.gates.shares import Unreadable
from batch_assets.errors import ConfigurationError
from batch_assets.gateway.client import Answer, Client, NoAnswer

KNOWN_SATURATIONS = (
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "sglang:token_usage",
)
"""From 0 to 1: the share of the memory for tokens that is in use, by vLLM's names, new and old, and SGLang's."""
KNOWN_QUEUES = ("vllm:num_requests_waiting", "sglang:num_queue_reqs")
"""Calls that wait in the server: while there are any, it is full."""


async def _get(client: Client, path: str) -> Answer:
    try:
        answer = await client.get(path)
    except (NoAnswer, ConfigurationError) as error:
        raise Unreadable(str(error)) from error
    if answer.status != 200:
        raise Unreadable(f"{client.base_url}{path} answers status {answer.status}")
    return answer


def split_url(url: str) -> tuple[str, str]:
    """Base URL and path of a URL."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, "", "", "")), urlunsplit(
        ("", "", parts.path, parts.query, "")
    )


@dataclass(frozen=True)
class Saturation:
    """How much of a server is free, by its metrics: 1 where it is empty, 0 from `threshold` on.

    `metric` holds a share from 0 to 1, or a number of which `maximum` is all. Without one, vLLM's and SGLang's are
    known: none may wait, and the memory for tokens tells how full it is.
    """

    client: Client
    path: str
    metric: str | None = None
    labels: Mapping[str, str] | None = None
    maximum: float | None = None
    threshold: float = 0.8

    async def __call__(self) -> float:
        samples = _samples((await _get(self.client, self.path)).body)
        if self.metric is not None:
            saturation = _highest(samples, [self.metric], self.labels)
            if saturation is None:
                raise Unreadable(
                    f"{self.client.base_url}{self.path} has no metric {self.metric}{self.labels or ''}"
                )
            if self.maximum is not None:
                saturation /= self.maximum
        else:
            saturation = _highest(samples, KNOWN_SATURATIONS, self.labels)
            waiting = _highest(samples, KNOWN_QUEUES, self.labels)
            if saturation is None and waiting is None:
                raise Unreadable(
                    f"{self.client.base_url}{self.path} has none of {', '.join(KNOWN_SATURATIONS + KNOWN_QUEUES)}; "
                    "name one in metric"
                )
            saturation = 1.0 if waiting else saturation or 0.0
        return free_share(saturation, self.threshold)


def free_share(saturation: float, threshold: float) -> float:
    """What is left of a server: 1 where it is empty, 0 from `threshold` on."""
    return max(0.0, 1.0 - saturation / threshold)


@dataclass(frozen=True)
class PrometheusQuery:
    """What one PromQL query returns, taken as the share that may pass."""

    client: Client
    query: str

    async def __call__(self) -> float:
        answer = await _get(self.client, "/api/v1/query?" + urlencode({"query": self.query}))
        try:
            found: Any = msgspec.json.decode(answer.body)
            result = found["data"]["result"]
            value = float(result[1] if found["data"]["resultType"] == "scalar" else result[0]["value"][1])
        except (msgspec.DecodeError, KeyError, IndexError, TypeError, ValueError, RecursionError):
            raise Unreadable(f"{self.client.base_url}: no value for {self.query}") from None
        if not math.isfinite(value):
            raise Unreadable(f"{self.client.base_url}: {self.query} is {value}")
        return value


_Samples = Sequence[tuple[str, Mapping[str, str], float]]


def _samples(text: bytes) -> _Samples:
    try:
        families = list(text_string_to_metric_families(text.decode()))
    except (ValueError, KeyError, IndexError) as error:
        raise Unreadable(f"metrics that cannot be read: {error}") from error
    return [(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]


def _highest(samples: _Samples, names: Sequence[str], labels: Mapping[str, str] | None) -> float | None:
    """Of several engines behind one server the fullest counts."""
    values = [
        value
        for name, has, value in samples
        if name in names
        and math.isfinite(value)
        and all(has.get(key) == text for key, text in (labels or {}).items())
    ]
    return max(values, default=None)
