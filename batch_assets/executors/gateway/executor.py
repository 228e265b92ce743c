"""The executor gateway: a shard runner whose computing is calls of a model server, from the run's own process.

The servers are in `servers.py`, what calls hold in `requests.py`, what is made of answers in `embeddings.py` and
`answers.py`.
"""

import hashlib
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import orjson

from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.schema import EMBED, GENERATE, Task
from batch_assets.errors import ConfigurationError, ModelError
from batch_assets.executors.base import Limits, Progress
from batch_assets.executors.gateway.answers import AnswerCalls
from batch_assets.executors.gateway.embeddings import EmbeddingCalls
from batch_assets.executors.gateway.images import Images
from batch_assets.executors.gateway.probing import served_model, try_out
from batch_assets.executors.gateway.requests import Requests, token_bound
from batch_assets.executors.gateway.streaming import streamed
from batch_assets.gateway.delivery import Server
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.manifest import InputManifest
from batch_assets.sharding.plan import Shard
from batch_assets.storage import Storage
from batch_assets.worker.attempt import Attempt, ShardRun
from batch_assets.worker.fetching import Fetching
from batch_assets.worker.run_shard import run_shard

Made = TypeVar("Made")
SHARDS_AT_ONCE = 2
"""While one waits for its last answers, the next fills the window."""
NOT_KNOWN = "unknown"
"""In what precision a server computes."""
VERSION = 1
"""Raised when calls are made otherwise, so that the same record gives another result."""


class Servers(Protocol):
    """What an executor takes of the servers that it is made on, see `servers.py`."""

    progress: Progress | None

    def server(self, settings: PipelineSettings) -> Server: ...

    def start(self, coroutine: Coroutine[Any, Any, Made]) -> "Future[Made]": ...

    def wait_for(self, coroutine: Coroutine[Any, Any, Made]) -> Made: ...


@dataclass
class GatewayExecutor:
    """Has a shard answered by a model server. See `base.ShardRunner` for the verbs."""

    servers: Servers
    settings: PipelineSettings
    kind: str = "gateway"
    in_place: bool = True
    limits: Limits = field(default_factory=Limits)
    _cancelled: set[str] = field(default_factory=set)
    _facts: dict[str, JobFacts] = field(default_factory=dict)

    def exclusive_device(self) -> str | None:
        """The server: what it takes at a time, and per minute, is found and kept by one process."""
        return self.requests.options.base_url

    def at_once(self) -> int:
        return SHARDS_AT_ONCE

    @property
    def task(self) -> Task:
        source = self.settings.source
        if self.settings.task != GENERATE and source.images:
            raise ConfigurationError(
                "task: executor gateway embeds texts, and the source has images; set task: generate, which shows them "
                "to a model that answers, or name another executor.type"
            )
        if self.requests.options.budget_usd is not None and self.requests.most_output_tokens is None:
            raise ConfigurationError(
                "executor.budget_usd: nothing limits how long an answer is, so nothing is known of what one costs; put "
                "max_tokens (or max_completion_tokens) into executor.body"
            )
        if self.requests.options.budget_usd is not None and source.images:
            raise ConfigurationError(
                "executor.budget_usd: how many tokens an image takes only the server knows; leave budget_usd out"
            )
        return self.settings.task or EMBED

    def fingerprint(self) -> str:
        """Digest of the model, as the server names it, and of what it is asked for. Asks the server, once."""
        _ = self.task
        model, options, source = self.settings.model, self.requests.options, self.settings.source
        parts: dict[str, Any] = {
            "version": VERSION,
            "task": self.task,
            "model": model.id,
            "served": self._served,
            "path": self.requests.path,
            "body": options.body,
            "prompt": model.prompt,
            "system_prompt": options.system_prompt,
            "dimensions": model.dimensions,
            "normalize": model.normalize,
            "too_long": options.too_long,
            "text": source.text_template or [*source.text_columns],
            "stored": self.settings.output.dtype,
        }
        return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]

    def check(self) -> None:
        """Make one small call, as the pipeline's will be. Raises ModelError with what the server answers."""
        self.servers.wait_for(try_out(self._server, self.requests))

    def cancel(self, job: str) -> None:
        """Whoever runs it gets Cancelled, within a moment; its calls end."""
        self._cancelled.add(job)

    def run(self, attempt: Attempt, storage: Storage) -> ShardRun:
        _ = self.task
        server, requests = self._server, self.requests
        images = Images(Fetching.of(self.settings)) if self.settings.source.images else None
        most = requests.options.max_attempts
        calls = (
            AnswerCalls(requests, most, images) if self.task == GENERATE else EmbeddingCalls(requests, most)
        )
        compute = streamed(
            calls,
            server,
            self.servers.start,
            records_per_call=requests.inputs_per_call,
            is_cancelled=lambda: attempt.job in self._cancelled,
            progress=self.servers.progress,
        )
        facts = self._facts[attempt.job] = JobFacts(
            self.settings.model.id, dtype=NOT_KNOWN, device=requests.options.base_url
        )
        try:
            return (yield from run_shard(attempt, storage, compute, facts))
        finally:
            if images is not None:
                images.stop()

    def calls(self, records: int) -> int:
        return -(-records // self.requests.inputs_per_call)

    def expected_usd(self, tokens: int, records: int) -> float | None:
        """With answers as long as they may be; None also where nothing limits them."""
        longest = self.requests.most_output_tokens
        return None if longest is None else self.requests.cost(tokens, longest * records)

    def bound_usd(self, shard: Shard, manifest: InputManifest) -> float:
        """By the bytes of what is sent: a token has at least one. Records that are sent again come on top."""
        requests = self.requests
        records, size = manifest.valid, manifest.bytes
        if requests.columns_needed:
            size += shard.bytes  # of which the text may be the least
        around = sum(
            map(token_bound, (self.settings.model.prompt or "", requests.options.system_prompt or ""))
        )
        return requests.cost(size + records * around, records * (requests.most_output_tokens or 0)) or 0.0

    def spent_usd(self, job: str) -> float:
        """By the tokens that the server has told; calls without an answer are not known of."""
        facts = self._facts.pop(job, None)
        return (facts.cost_usd or 0.0) if facts is not None else 0.0

    def embed_query(self, text: str) -> npt.NDArray[np.float32]:
        """The vector (dimensions,) of a text to be looked for, with `query_prompt` before it. Raises ModelError."""
        calls = EmbeddingCalls(Requests(self.settings), self.requests.options.max_attempts)
        asked = (self.settings.model.query_prompt or "") + text
        [found] = self.servers.wait_for(calls.embed(self._server, [asked], JobFacts()))
        if found.vector is None:
            raise ModelError(f"{text!r:.100}: {found.message} ({found.code})")
        return found.vector

    @cached_property
    def requests(self) -> Requests:
        return Requests(self.settings)

    @cached_property
    def _server(self) -> Server:
        return self.servers.server(self.settings)

    @cached_property
    def _served(self) -> dict[str, str]:
        return self.servers.wait_for(served_model(self._server, self.settings.model.id))
