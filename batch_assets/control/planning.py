"""Planning rounds: from the source's files to registered shards.

How files are cut is `sharding/planner.py`'s business; this module makes a generation known to
the root and to the ledger, and says what was noticed on the way.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from batch_assets.control.ownership import leave_root
from batch_assets.control.pipeline import Pipeline, register_plans
from batch_assets.errors import ConfigurationError, SourceError
from batch_assets.executors.base import Executor
from batch_assets.paths import shard_generation
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import PlanSummary, Shard
from batch_assets.sharding.plan_files import generations, read_plan, write_plan
from batch_assets.sharding.planner import PlanResult, plan_generation
from batch_assets.sharding.reading import sample_texts
from batch_assets.sources.images import meta_name
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
            within_limits(pipeline.settings, pipeline.executor),
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
    # Gone or changed for a while, and now as they were planned: else they would count as new for ever.
    restored = [
        file.path
        for file in pipeline.ledger.files(pipeline.name)
        if file.state != "planned" and file.path in result.unchanged
    ]
    pipeline.ledger.mark_files(pipeline.name, restored, "planned")
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


def within_limits(settings: PipelineSettings, executor: Executor) -> PipelineSettings:
    """The settings with shards no larger than one job of the executor takes."""
    most = executor.limits.records
    if most is None or settings.shards.records <= most:
        return settings
    logger.info(
        "shards.records: %d is more than a job takes; shards have %d records", settings.shards.records, most
    )
    return settings.model_copy(update={"shards": settings.shards.model_copy(update={"records": most})})


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
    limited = within_limits(settings, executor)
    result = plan_generation(
        limited, storage, min_records=executor.limits.min_records, replace=replace, spool=spool
    )
    shards: dict[str, Shard] = {}
    summaries: dict[int, PlanSummary] = {}
    for generation in generations(storage):
        summaries[generation], planned = read_plan(storage, generation)
        gone = set(summaries[generation].superseded)
        shards = {key: shard for key, shard in shards.items() if key not in gone}
        shards |= {shard.key: shard for shard in planned}
    gone = set(result.summary.superseded)
    old = [shard for key, shard in sorted(shards.items()) if key not in gone]
    if result.shards:
        sample = sample_texts(settings, result.shards, SAMPLED_TEXTS, result.summary, spool)
    else:
        sample = [
            text
            for part in _by_generation(old)
            for text in _sample(settings, part, len(old), summaries, storage)
        ]
    return Preview([*old, *result.shards], sample, describe(result, replace=replace))


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
        if stored != meta_name(source):  # which is the rule for images, and nothing to tell of each
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
