"""Planning a pipeline over another one's shards: the plan is the upstream's plan, shard for shard.

Nothing is listed and nothing is cut, so a plan can be made before the upstream has embedded
anything. What a shard's records are is told by `upstream.py`, when a shard may begin by `control/`.
"""

import datetime
from collections.abc import Sequence
from dataclasses import replace

from batch_assets.embeddings.marker import read_marker
from batch_assets.embeddings.schema import (
    EMBED,
    GENERATE,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    RESPONSE,
    Task,
)
from batch_assets.errors import AccountingError, ConfigurationError, SourceError
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.opening import column_scan
from batch_assets.sharding.plan import PlanResult, PlanSummary, Shard
from batch_assets.sharding.plan_files import generations, read_plan, read_summary
from batch_assets.sharding.upstream import upstream_root
from batch_assets.sources.base import Segment, SourceFile
from batch_assets.sources.column_kinds import Column, Kinds
from batch_assets.sources.shards import RECORD_ID, normalize_source, shard_file
from batch_assets.storage import Storage

FORMAT = "parquet"
_ANSWER = {RESPONSE: "string", INPUT_TOKENS: "int64", OUTPUT_TOKENS: "int64"}


def plan_chained(
    settings: PipelineSettings, root: Storage, *, max_records: int | None = None
) -> list[PlanResult]:
    """The upstream's generations that this pipeline does not have yet, each under the same number.

    `max_records` is the most that a job of the executor takes. Raises SourceError where the upstream
    has no plan yet; ConfigurationError for a limit, a shard that is too large, and a root that
    holds another source's plans.
    """
    if settings.source.uri is None:
        raise ValueError("source.pipeline must be resolved into a URI before planning")
    name = settings.source.pipeline
    if settings.source.limit is not None:
        raise ConfigurationError(
            f"source.limit: {settings.source.limit}: a pipeline over another one's shards takes all of them; leave "
            f"limit out, or set it in pipeline {name}"
        )
    upstream = upstream_root(settings.source.uri)
    planned = generations(upstream)
    if not planned:
        raise SourceError(
            f"source.pipeline: {name!r} has no plan under {upstream.uri} yet; `batch-assets run {name}`, or "
            f"`batch-assets plan {name}`, makes it"
        )
    known = generations(root)
    # The newest that both have: whoever took over that one had checked those before it.
    _check_own(settings, root, upstream, [number for number in known if number in planned][-1:])
    new = [number for number in planned if number not in known]
    if not new:
        return []
    if known and new[0] < known[-1]:
        raise _other_plans(settings, root, new[0])
    plans = [read_plan(upstream, number) for number in new]
    replaced = {key for summary, _ in plans for key in summary.superseded}
    columns: Sequence[Column] | None = read_summary(root, known[-1]).source_columns if known else None
    results: list[PlanResult] = []
    for summary, shards in plans:
        _check_sizes(settings, [shard for shard in shards if shard.key not in replaced], max_records)
        columns = _columns(settings, upstream, summary, columns)
        results.append(_generation(settings, summary, shards, columns))
    return results


def _check_own(settings: PipelineSettings, root: Storage, upstream: Storage, numbers: list[int]) -> None:
    """Refuse a root whose plans are not the upstream's."""
    for number in numbers:
        own, theirs = read_summary(root, number), read_summary(upstream, number)
        mine = own.base_uri == normalize_source(settings.source.uri or "")
        if not mine or (own.shards, own.records) != (theirs.shards, theirs.records):
            raise _other_plans(settings, root, number)


def _other_plans(settings: PipelineSettings, root: Storage, number: int) -> ConfigurationError:
    return ConfigurationError(
        f"output root {root.uri}: its plan g{number:04d} is not that of pipeline {settings.source.pipeline}, "
        "whose shards this pipeline shares key for key; give it an output root of its own"
    )


def _check_sizes(settings: PipelineSettings, shards: Sequence[Shard], most: int | None) -> None:
    large = [shard for shard in shards if most is not None and shard.records > most]
    if large:
        name = settings.source.pipeline
        raise ConfigurationError(
            f"shard {large[0].key} of pipeline {name} has {large[0].records:,} records, and a job of executor "
            f"{settings.executor.type} takes at most {most:,}; lower shards.records of pipeline {name} and plan it "
            "under a new output root"
        )


def _columns(
    settings: PipelineSettings, upstream: Storage, summary: PlanSummary, earlier: Sequence[Column] | None
) -> Sequence[Column]:
    """What passes through, by the types that the upstream's plan has fixed."""
    scan = column_scan(settings, FORMAT, earlier)
    task = summary.task or _committed_task(upstream)
    found = {RECORD_ID: "string", **summary.columns, **(_ANSWER if task == GENERATE else {})}
    for name, plan_type in found.items():
        scan.add_kinds(name, Kinds({plan_type}))
    # Of this generation, whatever the types were before: the upstream's files have no other.
    return [replace(column, type=found.get(column.source, column.type)) for column in scan.columns()]


def _committed_task(upstream: Storage) -> Task:
    """What the upstream makes of its records, by a commit of its: its plan is of a version that did not say."""
    for info in upstream.list("shards"):
        if info.path.endswith("/shard.json"):
            try:
                found = read_marker(upstream, info.path.split("/")[1])
            except AccountingError:
                continue
            if found is not None:
                return found[0].task
    return EMBED


def _generation(
    settings: PipelineSettings, summary: PlanSummary, shards: Sequence[Shard], columns: Sequence[Column]
) -> PlanResult:
    own = [_shard(shard) for shard in shards]
    uri = normalize_source(settings.source.uri or "")
    return PlanResult(
        replace(
            summary,
            source_uri=uri,
            base_uri=uri,
            format=FORMAT,
            columns={column.stored: column.type for column in columns},
            renamed={column.stored: column.source for column in columns if column.stored != column.source},
            shards=len(own),
            records=sum(shard.records for shard in own),
            bytes=sum(shard.bytes for shard in own),
            files=[_file(shard) for shard in own],
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            max_record_bytes=settings.shards.max_record_bytes,
            left_out=(),
            task=None,
            table=None,
            partitions={},
        ),
        own,
    )


def _shard(shard: Shard) -> Shard:
    """The upstream's shard as a file of which no version is known yet."""
    segment = Segment(shard_file(shard.key), "", 0, shard.records, 0, shard.bytes, shard.records)
    return Shard(shard.key, (segment,))


def _file(shard: Shard) -> SourceFile:
    [segment] = shard.segments
    return SourceFile(
        segment.path, shard.bytes, "", shard.records, segment.last_row, segment.last_byte, complete=True
    )


def plans_behind(settings: PipelineSettings, root: Storage) -> list[int]:
    """The upstream's generations that are not planned under `root` yet; none where it has no plan."""
    planned = set(generations(root))
    return [n for n in generations(upstream_root(settings.source.uri or "")) if n not in planned]
