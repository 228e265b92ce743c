"""What planning now would make of a source, for a person to see before anything is written under the root.

How a plan is made for good is in `planning.py`; what it will take, in `estimate.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batch_assets.control.chaining import is_chained
from batch_assets.control.planning import describe, new_generations
from batch_assets.executors.base import Executor
from batch_assets.ledger.ledger import Ledger
from batch_assets.paths import shard_generation, shard_order
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import PlanResult
from batch_assets.sharding.plan_files import generations, read_plan, read_shards, read_summary
from batch_assets.sharding.reading import sample_texts
from batch_assets.sources.spool_files import Spools
from batch_assets.storage import Storage, open_storage, same_place

SAMPLED_TEXTS = 512
SAMPLED_SHARDS = 16


@dataclass(frozen=True)
class Preview:
    """The records of each shard that counts, those that planning now would add among them; nobody has written these."""

    shards: Sequence[int]
    sample: list[str]
    notes: list[str]


def preview_plan(
    settings: PipelineSettings,
    executor: Executor,
    ledger: Ledger,
    spool: Storage,
    *,
    replace: bool = False,
) -> Preview:
    """What `plan_source` would make of the source now. Writes to `spool` only, nothing under the root.

    The sample is of valid texts, from all over the new shards, or over the old ones if none is new.
    """
    storage = open_storage(settings.output.root)
    results = new_generations(settings, executor, storage, replace=replace, spools=Spools(spool))
    gone = {key for result in results for key in result.summary.superseded}
    old = {key: records for key, records in _planned(settings, ledger, storage).items() if key not in gone}
    new = [shard.records for result in results for shard in result.shards if shard.key not in gone]
    sample = _sample_new(settings, results, spool) if new else _sample_old(settings, list(old), storage)
    notes = list(dict.fromkeys(note for result in results for note in describe(result, replace=replace)))
    if is_chained(settings) and not sample:
        notes.append("tokens are not known before the upstream has committed a shard")
    return Preview([*old.values(), *new], sample, notes)


def _planned(settings: PipelineSettings, ledger: Ledger, storage: Storage) -> Mapping[str, int]:
    """The records of each planned shard that counts, in the order of planning."""
    planned = generations(storage)
    row = ledger.pipeline(settings.name)
    if row is not None and same_place(row.root, storage.uri) and planned and row.generation == planned[-1]:
        return {shard.key: shard.records for shard in ledger.shards(settings.name)}
    # Nobody but the plans knows them, a request each.
    found: dict[str, int] = {}
    for generation in planned:
        summary, shards = read_plan(storage, generation)
        found |= {shard.key: shard.records for shard in shards}
        for key in summary.superseded:
            found.pop(key, None)
    return found


def _sample_new(settings: PipelineSettings, results: Sequence[PlanResult], spool: Storage) -> list[str]:
    most = SAMPLED_TEXTS // len(results) or 1
    return [
        text
        for result in results
        if result.shards
        for text in sample_texts(settings, result.shards, most, result.summary, spool)
    ]


def _sample_old(settings: PipelineSettings, keys: Sequence[str], storage: Storage) -> list[str]:
    """Texts of a few shards, spread over all of them."""
    chosen = keys[:: max(len(keys) // SAMPLED_SHARDS, 1)][:SAMPLED_SHARDS]
    by_generation: dict[int, list[str]] = {}
    for key in sorted(chosen, key=shard_order):
        by_generation.setdefault(shard_generation(key), []).append(key)
    sample: list[str] = []
    for generation, some in by_generation.items():
        shards = read_shards(storage, generation, some)
        most = max(1, SAMPLED_TEXTS * len(shards) // len(chosen))
        sample += sample_texts(settings, shards, most, read_summary(storage, generation), storage)
    return sample
