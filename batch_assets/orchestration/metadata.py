"""The only place that names a metadata key: the same keys on every materialization.

Dagster charts a number that comes back under one name, so each asset has a fixed set of keys.
What the numbers mean is in their units: `seconds`, `records_per_second`, `cost_usd`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import dagster as dg

from batch_assets.control.cleanup import Leftovers
from batch_assets.control.contact_sheet import ContactSheet
from batch_assets.embeddings.marker import ShardMarker
from batch_assets.embeddings.schema import (
    EMBEDDING,
    GENERATE,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    RESPONSE,
    TOKEN_COUNT,
    data_schema,
)
from batch_assets.ledger.story import StoryEntry
from batch_assets.merge.base import Manifest
from batch_assets.orchestration.markdown import NOTHING, markdown_list, markdown_text
from batch_assets.orchestration.pictures import bar_chart, photograph
from batch_assets.plain_text import plain_text

ROWS = "rows"
REJECTED = "rejected"
FAILED = "failed"
PLANNED = "planned"
BYTES = "bytes"
SECONDS = "seconds"
RECORDS_PER_SECOND = "records_per_second"
TOKENS = "tokens"
COST_USD = "cost_usd"
URI = "uri"
FINGERPRINT = "fingerprint"
MODEL = "model"
DTYPE = "dtype"
DEVICE = "device"
SHARDS = "shards"
NEW_SHARDS = "new_shards"
LEFT_OUT_SHARDS = "left_out_shards"
LEFT_OUT_RECORDS = "left_out_records"
DUPLICATE_IDS = "duplicate_ids"
MISSING_IDS = "missing_ids"
GROUPS = "groups"
FILES = "files"
OLDEST = "oldest"
EXAMPLES = "examples"
GENERATION = "generation"
ATTEMPT = "attempt"
ERROR = "error"
NOTES = "notes"
LENGTHS = "lengths"
THROUGHPUT = "throughput"
REASONS = "reasons"
STATE = "state"
TRIED_AGAIN = "tried_again"
UNANSWERED = "unanswered"
BOUND_USD = "bound_usd"
JOB_KIND = "job_kind"
REQUESTS = "requests"
REQUEST_BYTES = "request_bytes"
VERSION = "version"
CONTACT_SHEET = "contact_sheet"
LOWEST_COSINE = "lowest_cosine"
THRESHOLD = "threshold"
STORY = "story"
BATCHES = "batches"
OPEN = "open"
ACCEPTED = "accepted"
COMPLETED = "completed"
LATENCY_P50 = "latency_p50_seconds"
LATENCY_P99 = "latency_p99_seconds"
BACKLOG = "backlog"
HELD = "held"
OLDEST_SECONDS = "oldest_seconds"
OVERDUE_SECONDS = "overdue_seconds"
FIRST_DEADLINE = "first_deadline"
MESSAGES_PER_SECOND = "messages_per_second"
FAILURES = "failures"
UNREAD_RESULTS = "unread_results"
_STORY_ENTRIES, _STORY_CHARACTERS = 20, 200

# On an asset's definition rather than on an event:
SETTINGS = "batch_assets/settings"

RECOMPUTE_TAG = "batch_assets/recompute"
REPLACE_TAG = "batch_assets/replace"
COLLECT_TAG = "batch_assets/collect"
OWN_TAG = "batch_assets"
"""On each asset of a pipeline, so that sensors, and people's selections, tell them from a project's others."""
PROCESS_TAG = "batch_assets/process"
JOB_KIND_TAG = "batch_assets/job_kind"
PIPELINE_TAG = "batch_assets/pipeline"
START_TAG = "batch_assets/start"


def common(
    *,
    planned: int,
    rows: int,
    rejected: int,
    failed: int,
    bytes: int,
    seconds: float,
    tokens: int,
    uri: str,
    fingerprint: str,
    cost_usd: float | None = None,
    partition: bool = True,
) -> dict[str, Any]:
    """The keys that every materialization carries; `partition`: it is of one shard, not of all.

    `rows` are the records that go on from here, of those `planned`: valid, queued, or embedded ones.
    `cost_usd` is None where nothing is paid for.
    """
    found: dict[str, Any] = {
        PLANNED: planned,
        ROWS: rows,
        REJECTED: rejected,
        FAILED: failed,
        BYTES: bytes,
        SECONDS: round(seconds, 3),
        RECORDS_PER_SECOND: round(rows / seconds, 1) if seconds > 0 else 0.0,
        TOKENS: tokens,
        URI: dg.MetadataValue.path(uri),
        FINGERPRINT: fingerprint or "not known yet",
        "dagster/partition_row_count" if partition else "dagster/row_count": rows,
    }
    if cost_usd is not None:
        found[COST_USD] = cost_usd
    return found


def shard_metadata(marker: ShardMarker, uri: str, story: Sequence[StoryEntry]) -> dict[str, Any]:
    """What `embedding_outputs` says of one committed shard; `story` is what happened to it until then."""
    found = common(
        planned=marker.counts["planned"],
        rows=marker.counts["embedded"],
        rejected=marker.counts["rejected"],
        failed=marker.counts["failed"],
        bytes=sum(file.bytes for file in marker.files),
        seconds=marker.timings.get("seconds", 0.0),
        tokens=marker.tokens,
        uri=uri,
        fingerprint=marker.fingerprint,
        cost_usd=marker.cost_usd,
    )
    return (
        found
        | _usage(marker)
        | {
            MODEL: marker.model,
            DTYPE: marker.dtype,
            DEVICE: marker.device,
            ATTEMPT: marker.attempt,
            LENGTHS: length_picture(marker.token_histogram, _unit(marker)),
            STORY: story_table(story),
        }
    )


def merge_metadata(
    manifest: Manifest,
    uri: str,
    seconds: float,
    rates: Sequence[tuple[str, float]],
    sheet: ContactSheet | None = None,
) -> dict[str, Any]:
    """What `merged_embeddings` says of a published version; `rates` are records per second of some shards.

    `sheet` shows some of its images, where they are.
    """
    found = common(
        planned=manifest.planned,
        rows=manifest.rows,
        rejected=manifest.rejected,
        failed=manifest.failed,
        bytes=sum(part.bytes for part in manifest.parts) + manifest.failures.bytes,
        seconds=seconds,
        tokens=manifest.tokens,
        uri=uri,
        fingerprint=manifest.fingerprint,
        cost_usd=manifest.cost_usd,
        partition=False,
    )
    return (
        found
        | _usage(manifest)
        | {
            SHARDS: len(manifest.merged_shards),
            VERSION: manifest.version,
            THROUGHPUT: bar_chart("Records per second, by shard", rates),
            "dagster/column_schema": _column_schema(manifest),
            LEFT_OUT_SHARDS: manifest.left_out.shards,
            LEFT_OUT_RECORDS: manifest.left_out.records,
        }
        | ({GROUPS: len(manifest.groups)} if manifest.groups else {})
        | _ids(manifest)
        | ({CONTACT_SHEET: photograph("Nearest neighbours", sheet.jpeg, sheet.notes)} if sheet else {})
    )


def leftovers_metadata(found: Leftovers) -> dict[str, Any]:
    """What `cleanup` says it removed, or would remove: in all, and of each kind with a retention time."""
    told: dict[str, Any] = {FILES: found.files, BYTES: found.bytes}
    for kind, one in found.kinds.items():
        told |= {f"{kind.value}_{FILES}": one.files, f"{kind.value}_{BYTES}": one.bytes}
        if one.oldest is not None:
            told[f"{kind.value}_{OLDEST}"] = dg.MetadataValue.timestamp(one.oldest)
            told[f"{kind.value}_{EXAMPLES}"] = bullets(one.examples)
    return told


def _usage(written: ShardMarker | Manifest) -> dict[str, Any]:
    """Tokens by direction, where the task is `generate`; `tokens` are then the input ones."""
    if written.task != GENERATE:
        return {}
    return {INPUT_TOKENS: written.tokens, OUTPUT_TOKENS: written.output_tokens}


def _ids(manifest: Manifest) -> dict[str, Any]:
    """How many ids occur more than once, and how many records have none, where that was counted."""
    if manifest.ids is None:
        return {}
    return {DUPLICATE_IDS: manifest.ids.duplicates, MISSING_IDS: manifest.ids.missing}


def _unit(marker: ShardMarker) -> str:
    return "input tokens" if marker.task == GENERATE else "tokens"


def length_picture(histogram: Mapping[int, int], unit: str) -> dg.MetadataValue:
    """Record lengths as bars; `histogram` maps the lower end of each doubling to a count."""
    bars = [(f"{low:,}", count) for low, count in sorted(histogram.items())]
    return bar_chart(f"Records by length in {unit}, from", bars)


def story_table(story: Sequence[StoryEntry]) -> dg.MetadataValue:
    """The newest entries of a shard's story; `batch-assets status NAME SHARD` has all of it."""
    rows = ["| when | try | what happened | decided |", "|---|---|---|---|"]
    for entry in story[-_STORY_ENTRIES:]:
        when = datetime.fromtimestamp(entry.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        happened = ": ".join(part for part in (entry.event, entry.reason) if part)
        told = (when, str(entry.attempt or ""), _cut(happened), _cut(entry.decision))
        rows.append("| " + " | ".join(markdown_text(cell) for cell in told) + " |")
    return dg.MetadataValue.md("\n".join(rows) if story else NOTHING)


def _cut(text: str) -> str:
    return text if len(text) <= _STORY_CHARACTERS else text[:_STORY_CHARACTERS] + "…"


def bullets(lines: Sequence[str]) -> dg.MetadataValue:
    """Sentences as a list; `none` where there is nothing to say."""
    return dg.MetadataValue.md(markdown_list(lines))


def moment(seconds: float) -> dg.MetadataValue:
    """A time in Unix seconds; as text where it is none of a calendar's."""
    try:
        return dg.MetadataValue.timestamp(datetime.fromtimestamp(seconds, UTC))
    except (OverflowError, ValueError, OSError):
        return dg.MetadataValue.text(f"{seconds:g}")


def sentence(text: str) -> dg.MetadataValue:
    """One sentence, whatever it quotes."""
    return dg.MetadataValue.md(markdown_text(text))


COLUMN_DESCRIPTIONS = {
    "record_id": "The record's id: its id column's value as text, or `<shard>:<ordinal>`.",
    "source_file": "Where it was read: the file's path, relative to the source.",
    "source_row": "Where it was read: the row in that file, from 0.",
    EMBEDDING: "The record's vector.",
    TOKEN_COUNT: "Tokens that the model saw, special ones included.",
    RESPONSE: "The model's answer.",
    INPUT_TOKENS: "Tokens that the model read.",
    OUTPUT_TOKENS: "Tokens that the model wrote.",
}


def _column_schema(manifest: Manifest) -> dg.TableSchema:
    fields = data_schema(manifest.columns, manifest.dimensions, manifest.vector_dtype, manifest.task)
    types = {EMBEDDING: f"{manifest.vector_dtype}[{manifest.dimensions}]"}
    # By the manifest's columns: one that is passed through may be called `response` where vectors are made.
    described = COLUMN_DESCRIPTIONS | dict.fromkeys(manifest.columns, "Passed through from the source.")
    columns = [
        dg.TableColumn(
            plain_text(field.name), types.get(field.name, plain_text(str(field.type))), described[field.name]
        )
        for field in fields
    ]
    return dg.TableSchema(columns)


def show(context: dg.AssetExecutionContext, shard: str, found: dict[str, Any]) -> None:
    """Metadata of one shard of a run, shown with its materialization.

    What `context.add_asset_metadata` does, but for its check that the partition is the run's: that
    reads all keys of the pipeline for every call, a minute for 100 of 20,000 shards.
    """
    inside = cast("Any", context.op_execution_context)
    step = inside._step_execution_context
    step._metadata_accumulator = step._metadata_accumulator.with_additional_asset_metadata(
        asset_key=context.asset_key, metadata=found, partition_key=shard
    )
