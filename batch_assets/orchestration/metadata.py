"""The only place that names a metadata key: the same keys on every materialization.

Dagster charts a number that comes back under one name, so each asset fills the keys that it
knows and never invents another. What the numbers mean is in their units: `seconds`,
`records_per_second`, `cost_usd`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from batch_assets.embeddings.marker import ShardMarker
from batch_assets.orchestration.pictures import bar_chart

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
SHARDS = "shards"
GENERATION = "generation"
ATTEMPT = "attempt"
ERROR = "error"
NOTES = "notes"
PICTURE = "picture"
REASONS = "reasons"
STATE = "state"
VERSION = "version"
LOWEST_COSINE = "lowest_cosine"

# On an asset's definition rather than on an event:
SETTINGS = "batch_assets/settings"

RECOMPUTE_TAG = "batch_assets/recompute"
COLLECT_TAG = "batch_assets/collect"
HOLDER_TAG = "batch_assets/holder"


def common(
    *,
    rows: int,
    rejected: int,
    failed: int,
    bytes: int,
    seconds: float,
    tokens: int | None,
    uri: str,
    fingerprint: str,
    cost_usd: float | None = None,
) -> dict[str, Any]:
    """The keys that every materialization carries."""
    found: dict[str, Any] = {
        "dagster/row_count": rows,
        ROWS: rows,
        REJECTED: rejected,
        FAILED: failed,
        BYTES: bytes,
        SECONDS: round(seconds, 3),
        RECORDS_PER_SECOND: round(rows / seconds, 1) if seconds > 0 else 0.0,
        URI: dg.MetadataValue.path(uri),
        FINGERPRINT: fingerprint,
    }
    if tokens is not None:
        found[TOKENS] = tokens
    if cost_usd is not None:
        found[COST_USD] = cost_usd
    return found


def shard_metadata(marker: ShardMarker, uri: str) -> dict[str, Any]:
    """What `embedding_outputs` says of one committed shard."""
    found = common(
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
    return found | {
        PLANNED: marker.counts["planned"],
        MODEL: marker.model,
        DTYPE: marker.dtype,
        ATTEMPT: marker.attempt,
    }


def length_picture(histogram: Mapping[int, int], unit: str) -> dg.MetadataValue:
    """Record lengths as bars; `histogram` maps the lower end of each doubling to a count."""
    bars = [(f"{low:,}", count) for low, count in sorted(histogram.items())]
    return bar_chart(f"Records by length in {unit}, from", bars)


def throughput_picture(rates: Sequence[tuple[str, float]]) -> dg.MetadataValue:
    """Records per second of each shard as bars."""
    return bar_chart("Records per second, by shard", rates)
