"""What a plan will take: tokens from a sample of its records, seconds from the model's size.

Estimates only; what a run really took is in its commit markers.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from batch_assets.encoders.weights import locate_model
from batch_assets.settings import PipelineSettings
from batch_assets.sharding.plan import PlanSummary, Shard
from batch_assets.sharding.reading import read_shard

SAMPLED_SHARDS, SAMPLED_RECORDS = 8, 64
CHARACTERS_PER_TOKEN = 4.0
SHARE_OF_PEAK = 0.5  # of a plain matrix product's rate, which small models reach end to end

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Estimate:
    """`tokens` and `seconds` are None where nothing is known; `usd` is 0 on one's own machine."""

    records: int
    shards: int
    tokens: int | None
    seconds: float | None
    usd: float = 0.0
    usd_on_demand: float = 0.0


def estimate(
    settings: PipelineSettings, summary: PlanSummary | None, shards: Sequence[Shard], rate: float | None
) -> Estimate:
    """Estimate `shards`; `rate` is the records per second of earlier shards where it is known."""
    records = sum(shard.records for shard in shards)
    if not records or summary is None:
        return Estimate(records, len(shards), 0, 0.0)
    counts = _count_tokens(settings, list(_sample(settings, summary, shards)))
    tokens = round(float(np.mean(counts)) * records) if counts else None
    if rate:
        return Estimate(records, len(shards), tokens, round(records / rate, 1))
    operations = _operations_per_token(settings)
    if tokens is None or operations is None:
        return Estimate(records, len(shards), tokens, None)
    return Estimate(records, len(shards), tokens, round(tokens * operations / (_peak() * SHARE_OF_PEAK), 1))


def _sample(settings: PipelineSettings, summary: PlanSummary, shards: Sequence[Shard]) -> Iterator[str]:
    step = -(-len(shards) // SAMPLED_SHARDS)
    for shard in shards[::step]:
        for records in read_shard(settings, shard, summary):
            every = -(-len(records.texts) // SAMPLED_RECORDS) or 1
            yield from records.texts[::every]
            break


def _count_tokens(settings: PipelineSettings, texts: Sequence[str]) -> list[float]:
    """Tokens of each text: by the model's own tokenizer, or by its characters where there is none."""
    limit = settings.model.max_tokens
    count = _tokenizer(settings) or (lambda text: len(text) / CHARACTERS_PER_TOKEN + 2)
    found = [float(count((settings.model.prompt or "") + text)) for text in texts]
    return [min(tokens, limit) for tokens in found] if limit else found


def _tokenizer(settings: PipelineSettings) -> Callable[[str], float] | None:
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        return None
    file = locate_model(settings.model) / "tokenizer.json"
    if not file.is_file():
        return None
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text).ids)


def _operations_per_token(settings: PipelineSettings) -> float | None:
    """Floating-point operations per token of a transformer encoder: 2 for each weight of its layers."""
    file = locate_model(settings.model) / "config.json"
    if not file.is_file():
        return None
    config = json.loads(file.read_text(encoding="utf-8"))
    hidden, layers = config.get("hidden_size"), config.get("num_hidden_layers")
    if not isinstance(hidden, int) or not isinstance(layers, int):
        return None
    inner = config.get("intermediate_size") or 4 * hidden
    return 2.0 * layers * (4 * hidden * hidden + 2 * hidden * inner)


def _peak() -> float:
    """Operations per second of a float32 matrix product on this machine's cores, measured now."""
    size, best = 768, float("inf")
    a = np.ones((size, size), dtype=np.float32)
    for _ in range(4):
        started = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best
