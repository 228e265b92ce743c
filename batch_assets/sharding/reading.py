"""Reading a planned shard: its records, valid and rejected, in source order."""

from collections.abc import Iterator, Sequence

from batch_assets.paths import shard_generation
from batch_assets.settings import PipelineSettings
from batch_assets.sharding.plan import PlanSummary, Shard
from batch_assets.sharding.plan_files import read_summary
from batch_assets.sharding.planner import open_sources
from batch_assets.sources.base import BATCH_BYTES, BATCH_RECORDS, RecordRules, Records
from batch_assets.sources.records import joined
from batch_assets.sources.shards import open_source
from batch_assets.storage import Storage, open_storage


def read_shard(
    settings: PipelineSettings, shard: Shard, plan: PlanSummary | None = None, root: Storage | None = None
) -> Iterator[Records]:
    """The shard's records in batches of about 2,048 records or 8 MB.

    Ordinals run from 0 over all records, the rejected ones too. `plan` is the summary of the
    shard's generation, `root` the pipeline's storage; both are found by the settings if not given.

    Raises SourceError where a file is missing or no longer the planned version.
    """
    root = root if root is not None else open_storage(settings.output.root)
    plan = plan if plan is not None else read_summary(root, shard_generation(shard.key))
    return joined(_read_segments(settings, shard, plan, root), BATCH_RECORDS, BATCH_BYTES)


def _read_segments(
    settings: PipelineSettings, shard: Shard, plan: PlanSummary, root: Storage
) -> Iterator[Records]:
    rules = RecordRules(
        shard=shard.key,
        columns=plan.source_columns,
        longest=plan.max_record_bytes,
        text_column=settings.source.text_column,
        text_template=settings.source.text_template,
        id_column=settings.source.id_column,
    )
    storage = open_source(plan.base_uri)
    sources = open_sources(settings, plan.format, storage, root, plan.max_record_bytes)
    ordinal = 0
    for segment in shard.segments:
        yield from sources.of(segment.path).read(segment, rules, ordinal)
        ordinal += segment.records


def sample_texts(
    settings: PipelineSettings, shards: Sequence[Shard], most: int, plan: PlanSummary, root: Storage
) -> list[str]:
    """About `most` valid texts, from the beginnings of up to 16 shards spread over the plan."""
    step = max(len(shards) // 16, 1)
    chosen = shards[::step][:16]
    texts: list[str] = []
    for number, shard in enumerate(chosen, 1):
        goal = most * number // len(chosen)
        for records in _read_segments(settings, shard, plan, root):
            texts += records.texts[: max(goal - len(texts), 0)]
            if len(texts) >= goal:
                break
    return texts
