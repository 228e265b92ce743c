"""Outcomes as rows of a shard's two data files; which stretch of a shard they are is checked first.

The columns are in `schema.py`; how rows become files in `shard_writer.py`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.embeddings.schema import EMBEDDING, FAILURES_SCHEMA, INFERENCE, REJECT, TOKEN_COUNT
from batch_assets.embeddings.validation import Vectors


def check_complete(outcomes: Outcomes, first: int, shard: str) -> int:
    """Check that the outcomes cover the ordinals from `first` on, each once; returns the rejections."""
    records = outcomes.records
    count = len(records)
    if not len(outcomes.rows) == len(outcomes.vectors) == len(outcomes.token_counts):
        raise ValueError(
            f"shard {shard}: {len(outcomes.rows)} embedded rows with {len(outcomes.vectors)} vectors and "
            f"{len(outcomes.token_counts)} token counts"
        )
    if len(outcomes.rows) > 1 and not np.all(np.diff(outcomes.rows) > 0):
        raise ValueError(f"shard {shard}: embedded rows are not in source order")
    failed = np.fromiter((failure.row for failure in outcomes.failures), dtype=np.int64)
    if not np.array_equal(np.sort(np.concatenate([outcomes.rows, failed])), np.arange(count)):
        raise ValueError(
            f"shard {shard}: of {count} records {len(outcomes.rows)} are embedded and {len(failed)} failed: "
            "every record must be exactly one of the two"
        )
    rejected = [rejection.ordinal for rejection in records.rejections]
    valid = np.array(records.ordinals, dtype=np.int64)
    ordinals = np.sort(np.concatenate([valid, np.array(rejected, dtype=np.int64)]))
    complete = np.array_equal(ordinals, np.arange(first, first + len(ordinals)))
    if not complete or not np.all(np.diff(valid) > 0):
        raise ValueError(f"shard {shard}: the records from ordinal {first} on are not complete and in order")
    return len(rejected)


def embedded_table(outcomes: Outcomes, vectors: Vectors, schema: pa.Schema) -> pa.Table:
    """The embedded records; `vectors` are the outcomes' in the type in which they are stored."""
    records, rows = outcomes.records, outcomes.rows
    taken = pa.array(rows)
    vector_type = schema.field(EMBEDDING).type
    arrays: dict[str, pa.Array] = {
        "record_id": pa.array(_take(records.record_ids, rows), type=pa.string()),
        "source_file": pa.array(_take(records.source_files, rows), type=pa.string()),
        "source_row": pa.array(_take(records.source_rows, rows), type=pa.int64()),
        EMBEDDING: pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=vector_type),
        TOKEN_COUNT: pa.array(outcomes.token_counts, type=pa.int32()),
    }
    for name in schema.names:
        if name not in arrays:
            arrays[name] = records.columns.column(name).take(taken).cast(schema.field(name).type)
    return pa.table([arrays[name] for name in schema.names], schema=schema)


def failures_table(outcomes: Outcomes) -> pa.Table:
    """Rejections and failures of one stretch as rows of the failures file, by ordinal."""
    records = outcomes.records
    rows: list[tuple[int, tuple[Any, ...]]] = [
        (
            bad.ordinal,
            (_text(bad.record_id), bad.source_file, bad.source_row, REJECT, bad.code, _text(bad.message), 0),
        )
        for bad in records.rejections
    ]
    for failure in outcomes.failures:
        at = failure.row
        origin = records.record_ids[at], records.source_files[at], records.source_rows[at]
        told = INFERENCE, failure.code, _text(failure.message), failure.attempts
        rows.append((records.ordinals[at], (*origin, *told)))
    rows.sort(key=lambda row: row[0])
    columns = list(zip(*(row for _, row in rows), strict=True)) or [()] * len(FAILURES_SCHEMA)
    arrays = [
        pa.array(column, type=field.type) for column, field in zip(columns, FAILURES_SCHEMA, strict=True)
    ]
    return pa.table(arrays, schema=FAILURES_SCHEMA)


def _text(text: str) -> str:
    """What Parquet can hold: a rejected record may be rejected just for its lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _take(values: list[Any], rows: npt.NDArray[np.int64]) -> list[Any]:
    return values if len(rows) == len(values) else [values[row] for row in rows]
