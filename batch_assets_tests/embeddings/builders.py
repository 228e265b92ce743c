"""Outcomes and committed shards, made without a model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from batch_assets.embeddings.marker import ShardMarker, commit_marker, read_marker
from batch_assets.embeddings.outcomes import Failure, Outcomes
from batch_assets.embeddings.schema import GENERATE, Task
from batch_assets.embeddings.shard_writer import ShardFiles, ShardWriter
from batch_assets.sources.base import Records, Rejection
from batch_assets.sources.column_types import arrow_type
from batch_assets.storage import Storage

DIMENSIONS = 8
FILE = "part.jsonl"


def unit_vectors(rows: Sequence[int], dimensions: int = DIMENSIONS) -> np.ndarray:
    """One vector of length 1 for each source row, told by the row alone."""
    vectors = [np.random.default_rng(row).standard_normal(dimensions) for row in rows]
    table = np.array(vectors, dtype=np.float32).reshape(len(rows), dimensions)
    return table / np.linalg.norm(table, axis=1, keepdims=True) if len(rows) else table


def make_outcomes(
    kinds: str,
    first: int = 0,
    *,
    base: int = 0,
    file: str = FILE,
    columns: Mapping[str, str] | None = None,
    values: Mapping[str, Sequence[Any]] | None = None,
    dimensions: int = DIMENSIONS,
) -> Outcomes:
    """A stretch of records from ordinal `first` on, one per letter: e(mbedded), r(ejected), f(ailed).

    The source row is `base` plus the ordinal. `values` are those of the valid records.
    """
    valid = [(first + place, kind) for place, kind in enumerate(kinds) if kind != "r"]
    ordinals = [ordinal for ordinal, _ in valid]
    rejections = [
        Rejection(first + place, f"id-{first + place}", file, base + first + place, "no_text", "has no text")
        for place, kind in enumerate(kinds)
        if kind == "r"
    ]
    arrays = {
        name: pa.array((values or {}).get(name, [None] * len(valid)), type=arrow_type(plan_type))
        for name, plan_type in (columns or {}).items()
    }
    batch = pa.record_batch(arrays) if arrays else pa.RecordBatch.from_pylist([{}] * len(valid))
    rows = [row for row, (_, kind) in enumerate(valid) if kind == "e"]
    return Outcomes(
        records=Records(
            ordinals=ordinals,
            record_ids=[f"id-{ordinal}" for ordinal in ordinals],
            source_files=[file] * len(valid),
            source_rows=[base + ordinal for ordinal in ordinals],
            texts=["text"] * len(valid),
            columns=batch,
            rejections=rejections,
        ),
        rows=np.array(rows, dtype=np.int64),
        vectors=unit_vectors([base + ordinals[row] for row in rows], dimensions),
        token_counts=np.array([ordinals[row] % 50 + 1 for row in rows], dtype=np.int32),
        failures=[
            Failure(row, "model_error", "the model raised", attempts=2)
            for row, (_, kind) in enumerate(valid)
            if kind == "f"
        ],
    )


def make_answers(kinds: str, first: int = 0, **stretch: Any) -> Outcomes:
    """What `make_outcomes` gives, answered in place of embedded; `stretch` are its arguments."""
    outcomes = make_outcomes(kinds, first, **stretch)
    outcomes.vectors = np.empty((len(outcomes.rows), 0), dtype=np.float32)
    outcomes.responses = [f"answer to {outcomes.records.record_ids[row]}" for row in outcomes.rows]
    outcomes.output_tokens = outcomes.token_counts + np.int32(100)
    return outcomes


def marker_of(
    files: ShardFiles,
    shard: str,
    fence: int,
    planned: int,
    fingerprint: str = "f" * 16,
    cost_usd: float | None = None,
) -> ShardMarker:
    counts = {
        "planned": planned,
        "embedded": files.embedded,
        "rejected": files.rejected,
        "failed": files.failed,
    }
    return ShardMarker(
        shard=shard,
        pipeline="texts",
        fingerprint=fingerprint,
        model="tiny",
        executor="gpu",
        job="job-1",
        attempt=1,
        fence=fence,
        dtype="float32",
        device="cpu",
        dimensions=files.dimensions,
        vector_dtype=files.vector_dtype,
        normalized=files.normalized,
        columns=files.columns,
        files=files.files,
        counts=counts,
        tokens=files.tokens,
        created="2026-01-01T00:00:00+00:00",
        norms=files.norms,
        token_histogram=files.token_histogram,
        cost_usd=cost_usd,
        task=files.task,
        output_tokens=files.output_tokens,
    )


def write_shard(
    storage: Storage,
    shard: str,
    kinds: str = "eeee",
    *,
    fence: int = 1,
    base: int = 0,
    file: str = FILE,
    columns: Mapping[str, str] | None = None,
    values: Mapping[str, Sequence[Any]] | None = None,
    dimensions: int = DIMENSIONS,
    vector_dtype: str = "float32",
    fingerprint: str = "f" * 16,
    task: Task = "embed",
    cost_usd: float | None = None,
) -> ShardMarker:
    """Write and commit a shard, over what was committed before."""
    writer = ShardWriter(storage, shard, fence, columns or {}, vector_dtype, task=task)
    make = make_answers if task == GENERATE else make_outcomes
    writer.write(make(kinds, base=base, file=file, columns=columns, values=values, dimensions=dimensions))
    marker = marker_of(writer.close(dimensions), shard, fence, len(kinds), fingerprint, cost_usd)
    found = read_marker(storage, shard)
    assert commit_marker(storage, marker, found[1] if found else None)
    return marker
