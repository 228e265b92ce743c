"""Reading a planned shard: its records, valid and rejected, in source order.

What is different where the source is another pipeline's shards is in `upstream.py`.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from batch_assets.embeddings.marker import ShardMarker
from batch_assets.errors import SourceError
from batch_assets.paths import shard_generation
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.opening import open_sources
from batch_assets.sharding.plan import PlanSummary, Shard
from batch_assets.sharding.plan_files import read_summary
from batch_assets.sharding.upstream import (
    current_commit,
    demanded_commit,
    embedded_part,
    is_chained,
    left_out_upstream,
    upstream_root,
)
from batch_assets.sources.base import BATCH_BYTES, BATCH_RECORDS, RecordRules, Records, Segment
from batch_assets.sources.hive import HivePartitions
from batch_assets.sources.records import joined
from batch_assets.sources.registry import Sources
from batch_assets.sources.shards import open_source
from batch_assets.sources.spool_files import Spools
from batch_assets.sources.tables.snapshot import read_table_files
from batch_assets.storage import Storage, open_storage


def read_shard(
    settings: PipelineSettings,
    shard: Shard,
    plan: PlanSummary | None = None,
    root: Storage | None = None,
    *,
    contents: bool = True,
) -> Iterator[Records]:
    """The shard's records in batches of about 2,048 records or 8 MB; of images to be fetched, of 128.

    Ordinals run from 0 over all records, the rejected ones too. `plan` is the summary of the
    shard's generation, `root` the pipeline's storage; both are found by the settings if not given.
    Without `contents` no image is read: `images` is None, and who has no image is not always known.

    Of another pipeline's shard it is the commit that the input manifest under `root` names.

    Raises SourceError where a file is missing or no longer the planned version.
    """
    root, plan = _root_and_plan(settings, shard, plan, root)
    marker = demanded_commit(plan, root, shard.key) if is_chained(plan) else None
    batches = _read_segments(settings, shard, plan, root, marker, contents=contents)
    return joined(batches, BATCH_RECORDS, BATCH_BYTES)


def read_unprepared(
    settings: PipelineSettings, shard: Shard, plan: PlanSummary, root: Storage, marker: ShardMarker | None
) -> Iterator[Records]:
    """What `read_shard` gives without contents, of another pipeline's shard as this commit (None: of files) has it."""
    batches = _read_segments(settings, shard, plan, root, marker, contents=False)
    return joined(batches, BATCH_RECORDS, BATCH_BYTES)


def read_rows(
    settings: PipelineSettings,
    shard: Shard,
    wanted: Collection[tuple[str, int]],
    plan: PlanSummary | None = None,
    root: Storage | None = None,
) -> dict[tuple[str, int], tuple[bytes | str | None, str]]:
    """(source file, source row) → (image, text) of the `wanted` records, reading as little else as is cheap.

    Of a source of texts the image is None. Records that are rejected, or not in the shard, are left out.
    """
    root, plan = _root_and_plan(settings, shard, plan, root)
    sources = _sources(settings, plan, root)
    rules = record_rules(settings, shard, plan, contents=True)
    found: dict[tuple[str, int], tuple[bytes | str | None, str]] = {}
    marker = demanded_commit(plan, root, shard.key) if is_chained(plan) else None
    for segment in _segments(shard, marker):
        rows = {row for path, row in wanted if path == segment.path}
        rows = {row for row in rows if segment.first_row <= row < segment.last_row}
        source = sources.of(segment.path)
        for part in source.narrow(segment, rows) if rows else ():
            for records in source.read(part, rules, 0):
                images = records.images or [None] * len(records)
                for row, image, text in zip(records.source_rows, images, records.texts, strict=True):
                    if row in rows:
                        found[segment.path, row] = (image, text)
    return found


def _root_and_plan(
    settings: PipelineSettings, shard: Shard, plan: PlanSummary | None, root: Storage | None
) -> tuple[Storage, PlanSummary]:
    root = root if root is not None else open_storage(settings.output.root)
    return root, plan if plan is not None else read_summary(root, shard_generation(shard.key))


def _sources(settings: PipelineSettings, plan: PlanSummary, root: Storage) -> Sources:
    table = read_table_files(root, plan.table.files) if plan.table is not None else None
    return open_sources(
        settings,
        plan.format,
        open_source(plan.base_uri),
        Spools(root),
        plan.max_record_bytes,
        HivePartitions(plan.partitions).values,
        table,
    )


def record_rules(
    settings: PipelineSettings, shard: Shard, plan: PlanSummary, *, contents: bool
) -> RecordRules:
    """How the rows of a shard become records, with image files or without."""
    source = settings.source
    columns = plan.source_columns
    if is_chained(plan):
        # What is JSON text upstream is to be stored as it is, not as a JSON text of its text.
        columns = tuple(replace(one, type="string") if one.type == "json" else one for one in columns)
    return RecordRules(
        shard=shard.key,
        columns=columns,
        longest=plan.max_record_bytes,
        text_column=None if source.text_template is not None else source.text_columns[0],
        text_template=source.text_template,
        id_column=source.id_column,
        images=source.images,
        contents=contents,
    )


def _segments(shard: Shard, marker: ShardMarker | None) -> Sequence[Segment]:
    return shard.segments if marker is None else embedded_part(shard, marker)


def _read_segments(
    settings: PipelineSettings,
    shard: Shard,
    plan: PlanSummary,
    root: Storage,
    marker: ShardMarker | None,
    *,
    contents: bool,
) -> Iterator[Records]:
    """`marker` is the upstream's commit where the plan is chained."""
    rules = record_rules(settings, shard, plan, contents=contents)
    yield from _sources(settings, plan, root).read(_segments(shard, marker), rules)
    if marker is not None:
        yield from left_out_upstream(plan, shard, marker, rules)


def sample_texts(
    settings: PipelineSettings, shards: Sequence[Shard], most: int, plan: PlanSummary, root: Storage
) -> list[str]:
    """About `most` valid texts, from the beginnings of up to 16 shards spread over the plan.

    Of images they are captions, which may be "". Of another pipeline's shards only those that it
    has committed can be looked at: there may be none.
    """
    step = max(len(shards) // 16, 1)
    chosen = shards[::step][:16]
    texts: list[str] = []
    for number, shard in enumerate(chosen, 1):
        goal = most * number // len(chosen)
        marker = None
        if is_chained(plan):
            try:
                marker = current_commit(upstream_root(plan.base_uri), shard.key)
            except SourceError:
                continue
        for records in _read_segments(settings, shard, plan, root, marker, contents=False):
            texts += records.texts[: max(goal - len(texts), 0)]
            if len(texts) >= goal:
                break
    return texts
