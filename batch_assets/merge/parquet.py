"""Merges committed shards into one Parquet dataset: one part per shard, one file of failures, a manifest.

Parts are the shards' own bytes wherever their columns agree. Nothing is published here:
checks (`checks.py`) come first, then the swap (`publishing.py`). A merge that dies leaves a
folder without a manifest, which nobody reads and a later merge removes.
"""

import contextlib
import datetime
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets import paths
from batch_assets.embeddings.accounting import count_stages_of
from batch_assets.embeddings.parquet_files import GROUP_ROWS, DataFile, GroupedWriter, open_parquet
from batch_assets.embeddings.schema import FAILURES_SCHEMA, GENERATE, data_schema, plan_columns
from batch_assets.errors import AccountingError
from batch_assets.merge.base import (
    FailuresPart,
    Manifest,
    MergeResult,
    Part,
    Progress,
    read_manifest,
    write_manifest,
)
from batch_assets.merge.copying import check_file, copy_file, read_file
from batch_assets.merge.inputs import Input, Inputs, gather
from batch_assets.merge.publishing import current, start_version, versions_since
from batch_assets.merge.unify import conform, unified_schema
from batch_assets.storage import Storage
from batch_assets.storage.threads import map_in_order, threads_for

CASTING_THREADS = 2


def merge(
    storage: Storage,
    shards: Iterable[tuple[str, int]],
    fingerprint: str,
    *,
    metadata: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> MergeResult:
    """Write a merged version of `shards`, (key, planned records) in source order; it is not published.

    `metadata` goes into `metadata.json` beside what the merge knows itself. The same committed
    shards again give the version that is there. Raises NotReady where shards are missing or
    stale, AccountingError where their files are not what was committed.
    """
    inputs = gather(storage, shards, fingerprint)
    published = current(storage)
    found = _find_finished(storage, published, inputs.digest)
    if found is not None:
        return MergeResult(found, reused=True, expected_current=published)
    version = start_version(storage, published, inputs.digest)
    manifest = _write_version(storage, version, inputs, progress)
    told = {
        **(metadata or {}),
        "version": version,
        "num_samples": manifest.rows,
        "model": (metadata or {}).get("model", inputs.model),
        "timestamp": manifest.created,
        "fingerprint": fingerprint,
        **_results(manifest),
        "cost_usd": manifest.cost_usd,
        **vars(manifest.accounting),
    }
    data = orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS, default=str)
    storage.write(paths.merged_metadata(version), data + b"\n")
    write_manifest(storage, manifest)
    return MergeResult(manifest, reused=False, expected_current=published)


def _results(manifest: Manifest) -> dict[str, Any]:
    """What `metadata.json` says of the vectors, or of the answers."""
    if manifest.task == GENERATE:
        return {
            "task": manifest.task,
            "input_tokens": manifest.tokens,
            "output_tokens": manifest.output_tokens,
        }
    return {"dimensions": manifest.dimensions, "dtype": manifest.vector_dtype}


@dataclass(frozen=True)
class _Merged:
    """One shard's part, and its failures file as it is: many wait for their turn, and rows are larger."""

    part: Part
    failures: bytes


def _write_version(storage: Storage, version: str, inputs: Inputs, progress: Progress | None) -> Manifest:
    schema, vector_dtype = unified_schema(storage, inputs)
    # A cast holds a few row groups in memory, a copy next to nothing.
    threads = threads_for(storage) if len(inputs.layouts) == 1 else CASTING_THREADS
    planned = inputs.planned
    parts: list[Part] = []
    done = 0
    failures_writer = GroupedWriter(storage, paths.merged_failures(version), FAILURES_SCHEMA)
    try:
        merge_one = partial(_merge_shard, storage, version, schema)
        for one in map_in_order(merge_one, enumerate(inputs.shards), threads):
            for batch in _batches(one.failures):
                failures_writer.append(pa.Table.from_batches([batch], FAILURES_SCHEMA))
            parts.append(one.part)
            done += one.part.planned
            if progress is not None:
                progress(done, planned)
        failures = failures_writer.close()
    except BaseException:
        failures_writer.abort()
        raise
    return Manifest(
        version=version,
        format="parquet",
        fingerprint=inputs.fingerprint,
        digest=inputs.digest,
        parts=parts,
        failures=FailuresPart(_uri(failures, version), failures.rows, failures.bytes, failures.sha256),
        rows=sum(part.rows for part in parts),
        planned=planned,
        rejected=sum(part.rejected for part in parts),
        failed=sum(part.failed for part in parts),
        columns=plan_columns(schema),
        dimensions=inputs.shards[0].layout.dimensions,
        vector_dtype=vector_dtype,
        normalized=inputs.normalized,
        tokens=inputs.tokens,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        norms=inputs.norms.summary(),
        task=inputs.shards[0].layout.task,
        output_tokens=inputs.output_tokens,
        cost_usd=inputs.cost_usd,
    )


def _merge_shard(storage: Storage, version: str, schema: pa.Schema, item: tuple[int, Input]) -> _Merged:
    number, shard = item
    target = paths.merged_part(version, number)
    layout = shard.layout
    own = data_schema(dict(layout.columns), layout.dimensions, layout.vector_dtype, layout.task)
    if own.equals(schema, check_metadata=True):
        file = copy_file(storage, shard.embeddings, target)
    else:
        file = _cast_file(storage, shard.embeddings, target, schema)
    with open_parquet(storage, target) as written:
        rows = written.metadata.num_rows
        if rows != shard.embeddings.rows or not written.schema_arrow.equals(schema):
            raise AccountingError(
                f"{shard.embeddings.path}: holds {rows} rows of {written.schema_arrow.names}, but its marker "
                f"says {shard.embeddings.rows} rows of {schema.names}; embed its shard again"
            )
    failures = read_file(storage, shard.failures)
    stages = [count_stages_of(batch.column("stage"), shard.failures.path) for batch in _batches(failures)]
    rejected, failed = sum(one for one, _ in stages), sum(one for _, one in stages)
    part = Part(
        uri=_uri(file, version),
        rows=rows,
        bytes=file.bytes,
        sha256=file.sha256,
        shard=shard.shard,
        planned=shard.planned,
        rejected=rejected,
        failed=failed,
        source_sha256=shard.embeddings.sha256,
    )
    part.accounting.check(f"shard {shard.shard}")
    return _Merged(part, failures)


def _batches(failures: bytes) -> Iterator[pa.RecordBatch]:
    return pq.ParquetFile(pa.BufferReader(failures)).iter_batches(GROUP_ROWS)


def _cast_file(storage: Storage, source: DataFile, target: str, schema: pa.Schema) -> DataFile:
    """Write `source` again in another schema, a row group at a time."""
    check_file(storage, source)
    writer = GroupedWriter(storage, target, schema)
    try:
        with open_parquet(storage, source.path) as file:
            for group in range(file.num_row_groups):
                writer.append(conform(file.read_row_group(group), schema))
        return writer.close()
    except BaseException:
        writer.abort()
        raise


def _find_finished(storage: Storage, published: str | None, digest: str) -> Manifest | None:
    """A version of this content that is whole, published or not."""
    for version, files in versions_since(storage, published).items():
        if version.endswith(digest[:8]) and paths.merged_manifest(version) in files:
            with contextlib.suppress(AccountingError):  # a spoiled manifest is as good as none
                manifest = read_manifest(storage, version)
                if manifest is not None and manifest.digest == digest and _whole(storage, manifest):
                    return manifest
    return None


def _whole(storage: Storage, manifest: Manifest) -> bool:
    """Whether all parts are there in their size, so that a version with a lost file is made anew."""
    sizes = {info.path: info.size for info in storage.list(paths.merged_folder(manifest.version))}
    return all(sizes.get(manifest.path(part)) == part.bytes for part in [*manifest.parts, manifest.failures])


def _uri(file: DataFile, version: str) -> str:
    return file.path.removeprefix(paths.merged_folder(version) + "/")
