"""The upstream's side of a chained shard: which commit of it is read, and how it becomes records.

A shard of a pipeline over another one's shards has that shard's records: first the embedded ones,
in their order, then the rejected and failed ones, as rejections. Which commit that is, is settled
when the shard's records are checked, and stands in its input manifest: whoever reads it
afterwards reads the same, or is told that it has changed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import orjson
import pyarrow as pa

from batch_assets import paths
from batch_assets.embeddings.marker import ShardMarker, read_marker
from batch_assets.embeddings.parquet_files import open_parquet
from batch_assets.embeddings.schema import REJECT
from batch_assets.errors import AccountingError, SourceError
from batch_assets.settings.source import SHARDS_SCHEME
from batch_assets.sharding.plan import PlanSummary, Shard
from batch_assets.sources.base import BATCH_RECORDS, RecordRules, Records, Rejection, Segment
from batch_assets.sources.column_types import arrow_type
from batch_assets.sources.files import explained
from batch_assets.sources.records import empty_columns
from batch_assets.sources.shards import is_shards, shard_file
from batch_assets.storage import Storage, join_uri, open_storage

REJECTED_UPSTREAM, FAILED_UPSTREAM = "rejected_upstream", "failed_upstream"


@dataclass(frozen=True)
class UpstreamCommit:
    """A commit of an upstream shard: its marker's fence, and the digest (hex) of its embedded records' file."""

    fence: int
    sha256: str

    @property
    def version(self) -> str:
        """Both in one word, for the ledger."""
        return f"{self.fence}-{self.sha256}"

    @classmethod
    def parse(cls, version: str) -> "UpstreamCommit | None":
        """The inverse of `version`; None for an empty one."""
        fence, _, digest = version.partition("-")
        return cls(int(fence), digest) if digest else None

    @classmethod
    def of(cls, marker: ShardMarker) -> "UpstreamCommit":
        """The commit that a marker stands for."""
        return cls(marker.fence, marker.embeddings.sha256)


def is_chained(plan: PlanSummary) -> bool:
    """Whether the plan is that of another pipeline, shard for shard."""
    return is_shards(plan.base_uri)


def upstream_root(base_uri: str) -> Storage:
    """The output root of the pipeline that `base_uri`, a plan's or a source's, means."""
    return open_storage(base_uri.removeprefix(SHARDS_SCHEME))


def current_commit(root: Storage, key: str) -> ShardMarker:
    """The upstream shard's marker as it is now. Raises SourceError where there is none, or none to be read."""
    uri = join_uri(root.uri, paths.shard_marker(key))
    try:
        found = read_marker(root, key)
        if found is not None:
            _ = found[0].embeddings, found[0].failures
    except AccountingError as error:
        raise SourceError(
            f"{uri}: cannot be read as another pipeline's ({error}); `batch-assets verify` on that output "
            "root tells what is wrong there"
        ) from None
    if found is None:
        raise SourceError(f"{uri}: is not there, so shard {key} has no records yet; embed it upstream first")
    return found[0]


def noted_commit(root: Storage, key: str) -> UpstreamCommit | None:
    """The commit that the shard's input manifest names; None where it was not prepared."""
    found = root.read_versioned(paths.input_manifest(key))
    return None if found is None else commit_in(found[0])


def commit_in(manifest: bytes) -> UpstreamCommit | None:
    """The commit that this input manifest names; None where it names none, or is damaged and tells nothing."""
    try:
        noted = orjson.loads(manifest)["upstream"]
        return UpstreamCommit(int(noted["fence"]), str(noted["sha256"]))
    except (ValueError, KeyError, TypeError):
        return None


def demanded_commit(plan: PlanSummary, root: Storage, key: str) -> ShardMarker:
    """The upstream's marker, if it is the commit that the shard was prepared from; else SourceError."""
    marker = current_commit(upstream_root(plan.base_uri), key)
    noted = noted_commit(root, key)
    if noted is None:
        raise SourceError(f"shard {key}: its records are not checked yet; materialize input_shards first")
    if noted.sha256 != marker.embeddings.sha256:
        raise committed_anew(plan, key)
    return marker


def committed_anew(plan: PlanSummary, key: str) -> SourceError:
    """The error for a shard that the upstream computed again after this one was prepared from it."""
    return SourceError(
        f"{join_uri(plan.base_uri, shard_file(key))}: touched since shard {key} was prepared: the upstream "
        "committed it anew; `plan --replace` has this one made anew, too"
    )


def embedded_part(shard: Shard, marker: ShardMarker) -> list[Segment]:
    """The embedded records as a segment of this very commit's file; none where there are none."""
    [segment] = shard.segments
    file = marker.embeddings
    found = Segment(segment.path, file.sha256, 0, file.rows, 0, segment.last_byte, file.rows)
    return [found] if file.rows else []


def left_out_upstream(
    plan: PlanSummary, shard: Shard, marker: ShardMarker, rules: RecordRules
) -> Iterator[Records]:
    """The records that the upstream has rejected or failed, as rejections behind the embedded ones.

    Raises SourceError where the two files do not hold what was planned.
    """
    root = upstream_root(plan.base_uri)
    ordinal = marker.embeddings.rows
    names = ["record_id", "stage", "error_code", "error_message"]
    with explained(root, marker.failures.path), open_parquet(root, marker.failures.path) as file:
        for batch in file.iter_batches(batch_size=BATCH_RECORDS, columns=names):
            rejections: list[Rejection] = []
            for row in batch.to_pylist():
                code = REJECTED_UPSTREAM if row["stage"] == REJECT else FAILED_UPSTREAM
                message = f"{row['error_code']}: {row['error_message']}"
                path = shard.segments[0].path
                rejections.append(Rejection(ordinal, row["record_id"], path, ordinal, code, message))
                ordinal += 1
            yield _nothing_but(rejections, rules)
    if ordinal != shard.records:
        raise SourceError(
            f"shard {shard.key}: {shard.records:,} records were planned and the upstream's files hold {ordinal:,}; "
            "`batch-assets verify` on its output root tells what is wrong there"
        )


def _nothing_but(rejections: list[Rejection], rules: RecordRules) -> Records:
    schema = pa.schema([(column.stored, arrow_type(column.type)) for column in rules.columns])
    columns = schema.empty_table().to_batches() or [pa.RecordBatch.from_pylist([], schema=schema)]
    return Records(
        ordinals=[],
        record_ids=[],
        source_files=[],
        source_rows=[],
        texts=[],
        columns=columns[0] if rules.columns else empty_columns(0),
        rejections=rejections,
        images=[] if rules.images and rules.contents else None,
    )
