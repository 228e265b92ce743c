"""What a plan will take: tokens from a sample of its records, seconds from the model's size.

Estimates only; what a run really took is in its commit markers.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from batch_assets.encoders.devices import processor_peak
from batch_assets.encoders.patches import patches, read_config
from batch_assets.encoders.weights import is_user_model, locate_model
from batch_assets.executors.base import Executor, PaidRunner
from batch_assets.executors.service_jobs import BatchService, has_results
from batch_assets.ledger.ledger import Ledger
from batch_assets.settings.in_place import GpuExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings

CHARACTERS_PER_TOKEN = 4.0
_NO_LIMIT = 10**9  # transformers writes a missing limit as 10^30
_LIMITS = (
    ("sentence_bert_config.json", "max_seq_length"),
    ("tokenizer_config.json", "model_max_length"),
    ("config.json", "max_position_embeddings"),
)
SHARE_OF_PEAK = 0.5  # what small models reach from file to file; see docs/performance.md


@dataclass(frozen=True)
class Estimate:
    """`seconds` is None where nothing is known of the model, or of the service's queue.

    `usd` is what a service takes for `tokens` (and as many answers), `usd_on_demand` what it takes
    where each record is a call of its own; 0 on one's own machine, None where no price is known.
    Shards that are too small for a job are called so anyway, and `usd` has them at that price.
    """

    records: int
    shards: int
    tokens: int
    seconds: float | None
    usd: float | None = 0.0
    usd_on_demand: float | None = 0.0


def estimate(
    settings: PipelineSettings,
    executor: Executor,
    shards: Sequence[int],
    sample: Sequence[str],
    rate: float | None,
    usd_per_record: float | None = None,
) -> Estimate:
    """Estimate shards of so many records each: their tokens by a sample of their texts, their time by `rate`.

    `rate` is the records per second of earlier shards, `usd_per_record` what these have cost at a
    service that is paid by time; None: not known. Images are all of one size to a model, and need
    no sample.
    """
    records = sum(shards)
    images = settings.source.images
    if not records or not (sample or images):
        return Estimate(records, len(shards), 0, 0.0)
    if isinstance(executor, PaidRunner):
        return _by_calls(settings, executor, shards, sample, rate)
    if has_results(executor):
        return _at_service(settings, executor, shards, sample, rate, usd_per_record)
    counts = [patches(settings.model)] if images else _count_tokens(settings, sample)
    tokens = round(float(np.mean(counts)) * records)
    if not executor.in_place:  # how many of its workers run at a time, only the service knows
        seconds = round(records / rate, 1) if rate else None
        return Estimate(records, len(shards), tokens, seconds, _by_time(usd_per_record, records), None)
    if rate:
        return Estimate(records, len(shards), tokens, round(records / rate, 1))
    operations, peak = _operations_per_token(settings), processor_peak(settings.model.dtype)
    here = settings.executor if isinstance(settings.executor, GpuExecutorSettings) else None
    if operations is None or here is None or here.device.startswith("cuda"):
        return Estimate(records, len(shards), tokens, None)
    return Estimate(records, len(shards), tokens, round(tokens * operations / (peak * SHARE_OF_PEAK), 1))


def _by_calls(
    settings: PipelineSettings,
    executor: PaidRunner,
    shards: Sequence[int],
    sample: Sequence[str],
    rate: float | None,
) -> Estimate:
    """A server's tokenizer is not to be had: tokens go by characters; how fast it is, only earlier shards tell."""
    records = sum(shards)
    prompt = len(settings.model.prompt or "")
    characters = float(np.mean([prompt + len(text) for text in sample])) if sample else 0.0
    tokens = round(characters / CHARACTERS_PER_TOKEN * records)
    usd = _cents(executor.expected_usd(tokens, records))
    return Estimate(records, len(shards), tokens, round(records / rate, 1) if rate else None, usd, usd)


def _at_service(
    settings: PipelineSettings,
    executor: BatchService,
    shards: Sequence[int],
    sample: Sequence[str],
    rate: float | None,
    usd_per_record: float | None,
) -> Estimate:
    """A service's tokenizer is not to be had: tokens go by characters, answers by the most that is asked for."""
    records = sum(shards)
    longest, answer = executor.token_bounds()
    prompt = len(settings.model.prompt or "")
    counts = [(prompt + len(text)) / CHARACTERS_PER_TOKEN for text in sample]
    counts = [min(count, longest) if longest else count for count in counts]
    tokens = round(float(np.mean(counts)) * records)
    usd = expected_cost(executor, tokens, answer * records, shards, records)
    return Estimate(
        records,
        len(shards),
        tokens,
        round(records / rate, 1) if rate else None,
        _cents(usd) or _by_time(usd_per_record, records),
        _cents(executor.cost(tokens, answer * records, on_demand=True)),
    )


def expected_cost(
    executor: BatchService, tokens: int, answer_tokens: int, shards: Sequence[int], records: int
) -> float | None:
    """USD for so many tokens of `records` records; None where there is no price.

    `shards` are the records of each shard (the small ones do): those too few for a job are called one by one.
    """
    in_batches = executor.cost(tokens, answer_tokens)
    on_demand = executor.cost(tokens, answer_tokens, on_demand=True)
    if in_batches is None or on_demand is None or not records:
        return in_batches
    return in_batches + (on_demand - in_batches) * executor.called_singly(shards) / records


def called_singly(executor: Executor, shards: Sequence[int]) -> int:
    """How many records of shards of this size the service gets in calls of their own, as far as the plan tells."""
    return executor.called_singly(shards) if has_results(executor) else 0


def usd_per_record(ledger: Ledger, pipeline: str) -> float | None:
    """What a record has cost so far; None where nothing is known of that."""
    if ledger.pipeline(pipeline) is None:
        return None
    totals, spent = ledger.totals(pipeline), ledger.money(pipeline).spent_usd
    done = totals.embedded + totals.rejected + totals.failed
    return spent / done if spent and done else None


def _by_time(usd_per_record: float | None, records: int) -> float | None:
    return None if usd_per_record is None else _cents(usd_per_record * records)


def _cents(usd: float | None) -> float | None:
    return None if usd is None else round(usd, 6)


def _count_tokens(settings: PipelineSettings, texts: Sequence[str]) -> list[float]:
    """Tokens of each text: by the model's own tokenizer, or by its characters where there is none."""
    limit = settings.model.max_tokens or _own_limit(locate_model(settings.model))
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


def _own_limit(folder: Path) -> int | None:
    """After how many tokens the model cuts a text off, by the first of its files that says so."""
    for name, field in _LIMITS:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            limit = json.loads((folder / name).read_text(encoding="utf-8")).get(field)
            if isinstance(limit, int) and 0 < limit < _NO_LIMIT:
                return limit
    return None


def _operations_per_token(settings: PipelineSettings) -> float | None:
    """Floating-point operations per token of a transformer encoder: 2 for each weight of its layers."""
    if is_user_model(settings.model):
        return None
    config = read_config(settings.model)
    config = config.get("vision_config" if settings.source.images else "text_config") or config
    hidden, layers = config.get("hidden_size"), config.get("num_hidden_layers")
    if not isinstance(hidden, int) or not isinstance(layers, int):
        return None
    inner = config.get("intermediate_size") or round(config.get("mlp_ratio") or 4) * hidden
    return 2.0 * layers * (4 * hidden * hidden + 2 * hidden * inner)
