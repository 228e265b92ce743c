"""Outcomes as rows of a shard's two data files; which stretch of a shard they are is checked first.

The columns are in `schema.py`; how rows become files in `shard_writer.py`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.embeddings.schema import (
    EMBED,
    EMBEDDING,
    FAILURES_SCHEMA,
    INFERENCE,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    REJECT,
    RESPONSE,
    TOKEN_COUNT,
    Task,
)
from batch_assets.embeddings.validation import Vectors


def check_complete(outcomes: Outcomes, first: int, shard: str, task: Task = EMBED) -> int:
    """Check that the outcomes are of `task` and cover the ordinals from `first` on, each once.

    Returns the number of rejections. Raises ValueError.
    """
    records = outcomes.records
    count = len(records)
    if not len(outcomes.rows) == len(outcomes.vectors) == len(outcomes.token_counts):
        raise ValueError(
            f"shard {shard}: {len(outcomes.rows)} embedded rows with {len(outcomes.vectors)} vectors and "
            f"{len(outcomes.token_counts)} token counts"
        )
    _check_responses(outcomes, shard, task)
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


def _check_responses(outcomes: Outcomes, shard: str, task: Task) -> None:
    responses, counts = outcomes.responses, outcomes.output_tokens
    if task == EMBED:
        if responses is not None or counts is not None:
            raise ValueError(f"shard {shard}: responses, where the task is {EMBED}")
        return
    expected = len(outcomes.rows)
    found = 0 if responses is None else len(responses)
    counted = 0 if counts is None else len(counts)
    if not found == counted == expected:
        raise ValueError(
            f"shard {shard}: {expected} answered rows with {found} responses and {counted} output token counts"
        )
    # The type promises it, but answers come from services.
    if not all(isinstance(response, str) for response in responses or ()):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"shard {shard}: a response is no text")


def embedded_table(outcomes: Outcomes, vectors: Vectors, schema: pa.Schema) -> pa.Table:
    """The embedded records; `vectors` are the outcomes' in the type in which they are stored."""
    vector_type = schema.field(EMBEDDING).type
    found = {
        EMBEDDING: pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=vector_type),
        TOKEN_COUNT: pa.array(outcomes.token_counts, type=pa.int32()),
    }
    return _data_table(outcomes, found, schema)


def responses_table(outcomes: Outcomes, schema: pa.Schema) -> pa.Table:
    """The answered records of a task `generate`."""
    found = {
        RESPONSE: pa.array([_text(response) for response in outcomes.responses or ()], type=pa.string()),
        INPUT_TOKENS: pa.array(outcomes.token_counts, type=pa.int32()),
        OUTPUT_TOKENS: pa.array(outcomes.output_tokens, type=pa.int32()),
    }
    return _data_table(outcomes, found, schema)


def _data_table(outcomes: Outcomes, found: dict[str, Any], schema: pa.Schema) -> pa.Table:
    """The columns `found` of the rows that came out well, beside where each row is from."""
    records, rows = outcomes.records, outcomes.rows
    taken = pa.array(rows)
    arrays: dict[str, Any] = {
        "record_id": pa.array(_take(records.record_ids, rows), type=pa.string()),
        "source_file": pa.array(_take(records.source_files, rows), type=pa.string()),
        "source_row": pa.array(_take(records.source_rows, rows), type=pa.int64()),
        **found,
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
        stage = REJECT if failure.rejected else INFERENCE
        told = stage, failure.code, _text(failure.message), failure.attempts
        rows.append((records.ordinals[at], (*origin, *told)))
    rows.sort(key=lambda row: row[0])
    columns = list(zip(*(row for _, row in rows), strict=True)) or [()] * len(FAILURES_SCHEMA)
    arrays = [
        pa.array(column, type=field.type) for column, field in zip(columns, FAILURES_SCHEMA, strict=True)
    ]
    return pa.table(arrays, schema=FAILURES_SCHEMA)


def _text(text: str) -> str:
    """What Parquet can hold: a record may be rejected just for its lone surrogates, an answer may have some."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _take(values: list[Any], rows: npt.NDArray[np.int64]) -> list[Any]:
    return values if len(rows) == len(values) else [values[row] for row in rows]
