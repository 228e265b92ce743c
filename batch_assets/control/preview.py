"""What planning now would make of a source, for a person to see before anything is written under the root.

How a plan is made for good is in `planning.py`; what it will take, in `estimate.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batch_assets.control.chaining import is_chained
from batch_assets.control.planning import describe, new_generations
from batch_assets.executors.base import Executor
from batch_assets.paths import shard_generation, shard_order
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import PlanSummary, Shard
from batch_assets.sharding.plan_files import generations, read_plan
from batch_assets.sharding.reading import sample_texts
from batch_assets.sources.spool_files import Spools
from batch_assets.storage import Storage, open_storage

SAMPLED_TEXTS = 512


@dataclass(frozen=True)
class Preview:
    """All shards that count, with those that planning now would add, which nobody has written."""

    shards: Sequence[Shard]
    sample: list[str]
    notes: list[str]


def preview_plan(
    settings: PipelineSettings, executor: Executor, spool: Storage, *, replace: bool = False
) -> Preview:
    """What `plan_source` would make of the source now. Writes to `spool` only, nothing under the root.

    The sample is of valid texts, from all over the new shards, or over the old ones if none is new.
    """
    storage = open_storage(settings.output.root)
    results = new_generations(settings, executor, storage, replace=replace, spools=Spools(spool))
    shards: dict[str, Shard] = {}
    summaries: dict[int, PlanSummary] = {}
    for generation in generations(storage):
        summaries[generation], planned = read_plan(storage, generation)
        gone = set(summaries[generation].superseded)
        shards = {key: shard for key, shard in shards.items() if key not in gone}
        shards |= {shard.key: shard for shard in planned}
    gone = {key for result in results for key in result.summary.superseded}
    old = [shards[key] for key in sorted(shards, key=shard_order) if key not in gone]
    new = [shard for result in results for shard in result.shards if shard.key not in gone]
    if new:
        sample = [
            text
            for result in results
            if result.shards
            for text in sample_texts(
                settings, result.shards, SAMPLED_TEXTS // len(results) or 1, result.summary, spool
            )
        ]
    else:
        sample = [
            text
            for part in _by_generation(old)
            for text in _sample(settings, part, len(old), summaries, storage)
        ]
    notes = list(dict.fromkeys(note for result in results for note in describe(result, replace=replace)))
    if is_chained(settings) and not sample:
        notes.append("tokens are not known before the upstream has committed a shard")
    return Preview([*old, *new], sample, notes)


def _by_generation(shards: Sequence[Shard]) -> list[list[Shard]]:
    parts: dict[int, list[Shard]] = {}
    for shard in shards:
        parts.setdefault(shard_generation(shard.key), []).append(shard)
    return list(parts.values())


def _sample(
    settings: PipelineSettings,
    part: Sequence[Shard],
    total: int,
    summaries: Mapping[int, PlanSummary],
    storage: Storage,
) -> list[str]:
    """Texts of one generation's shards, as many as its share of all `total` shards."""
    most = max(1, SAMPLED_TEXTS * len(part) // total)
    return sample_texts(settings, part, most, summaries[shard_generation(part[0].key)], storage)
