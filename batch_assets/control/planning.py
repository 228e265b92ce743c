"""Planning rounds: from the source's files to registered shards.

How files are cut is `sharding/planner.py`'s business; this module makes a generation known to
the root and to the ledger, and says what was noticed on the way.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from batch_assets.control.ownership import leave_root
from batch_assets.control.pipeline import Pipeline, register_plans
from batch_assets.errors import ConfigurationError, SourceError
from batch_assets.executors.base import Executor
from batch_assets.paths import shard_generation
from batch_assets.settings import PipelineSettings
from batch_assets.sharding.plan import Shard
from batch_assets.sharding.plan_files import generations, read_plan, read_summary, write_plan
from batch_assets.sharding.planner import PlanResult, plan_generation
from batch_assets.sharding.reading import sample_texts
from batch_assets.storage import Storage, open_storage

SAMPLED_TEXTS = 512
SPEAK_SECONDS = 10.0
logger = logging.getLogger(__name__)
NAMED_IN_NOTES = 5


@dataclass(frozen=True)
class PlanningResult:
    """What stands after a planning round; `new_keys` is empty where the source held nothing new.

    `all_keys` are the keys of every generation, sorted, superseded ones among them. `records`
    and `bytes` are those of the shards that count.
    """

    generation: int
    new_keys: list[str]
    all_keys: list[str]
    records: int
    bytes: int
    notes: list[str] = field(default_factory=list)


def plan_source(pipeline: Pipeline, *, replace: bool = False) -> PlanningResult:
    """Plan what is new and register it; repeatable, also by two at once.

    With `replace`, the shards of touched and removed files leave the merge. Where the very
    first plan cannot be made, the root is left as it was found.
    """
    try:
        result = plan_generation(
            pipeline.settings,
            pipeline.storage,
            min_records=pipeline.executor.limits.min_records,
            replace=replace,
            on_progress=_SpokenProgress(pipeline.name),
        )
    except (ConfigurationError, SourceError):
        if not generations(pipeline.storage):
            leave_root(pipeline.storage)
        raise
    if result.changes:
        # Another planner may have been first: what counts is what the root holds afterwards.
        write_plan(pipeline.storage, result.summary, result.shards)
    new_keys = register_plans(pipeline)
    pipeline.ledger.mark_files(pipeline.name, [] if replace else list(result.touched), "touched")
    pipeline.ledger.mark_files(pipeline.name, list(result.removed), "removed")
    rows = pipeline.ledger.shards(pipeline.name, superseded=True)
    counted = [row for row in rows if not row.superseded]
    return PlanningResult(
        generation=max(generations(pipeline.storage), default=0),
        new_keys=new_keys,
        all_keys=sorted(row.key for row in rows),
        records=sum(row.records for row in counted),
        bytes=sum(row.bytes for row in counted),
        notes=describe(result, replace=replace),
    )


@dataclass(frozen=True)
class Preview:
    """All shards that count, with those that planning now would add, which nobody has written."""

    shards: Sequence[Shard]
    sample: list[str]
    notes: list[str]


def preview_plan(settings: PipelineSettings, executor: Executor, spool: Storage) -> Preview:
    """What `plan_source` would make of the source now. Writes to `spool` only, nothing under the root.

    The sample is of valid texts, from all over the new shards, or of the last one if none is new.
    """
    storage = open_storage(settings.output.root)
    result = plan_generation(settings, storage, min_records=executor.limits.min_records, spool=spool)
    sample = (
        sample_texts(settings, result.shards, SAMPLED_TEXTS, result.summary, spool) if result.shards else []
    )
    shards: dict[str, Shard] = {}
    for generation in generations(storage):
        summary, planned = read_plan(storage, generation)
        shards = {key: shard for key, shard in shards.items() if key not in set(summary.superseded)}
        shards |= {shard.key: shard for shard in planned}
    shards |= {shard.key: shard for shard in result.shards}
    ordered = [shards[key] for key in sorted(shards)]
    if not sample and ordered:
        last = ordered[-1]
        last_summary = read_summary(storage, shard_generation(last.key))
        sample = sample_texts(settings, [last], SAMPLED_TEXTS, last_summary, storage)
    return Preview(ordered, sample, describe(result, replace=False))


class _SpokenProgress:
    """Says now and then how much of a long source has been looked at."""

    def __init__(self, name: str) -> None:
        self._name, self._said = name, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._said >= SPEAK_SECONDS:
            self._said = now
            logger.info("planning %s: %.1f of %.1f GB looked at", self._name, done / 1e9, total / 1e9)


def describe(result: PlanResult, *, replace: bool) -> list[str]:
    """What a person should know of a planning round, a sentence each."""
    notes = [f"left out: {kind}" for kind in result.summary.left_out]
    for source, stored in ((source, stored) for stored, source in result.summary.renamed.items()):
        notes.append(f"column {source!r} is stored as {stored!r}: the name is taken by an output column")
    fate = (
        "their old shards leave the merge"
        if replace
        else "their old shards stay as they are; see `plan --replace`"
    )
    for paths, what in (
        (result.touched, "touched since they were planned"),
        (result.removed, "gone from the source"),
    ):
        if paths:
            named = ", ".join(paths[:NAMED_IN_NOTES]) + (", …" if len(paths) > NAMED_IN_NOTES else "")
            notes.append(f"{len(paths)} files are {what} ({named}); {fate}")
    return notes
