"""Rows of one attempt in a Parquet file, by ordinal: kept until the shard's last attempt is done.

What rows mean and how they come together is in `job_rows.py`. The file is the pipeline's own,
no part of its output.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch_assets.embeddings.parquet_files import DataFile, GroupedWriter, open_parquet
from batch_assets.embeddings.schema import EMBEDDING, RESPONSE
from batch_assets.errors import AccountingError
from batch_assets.storage import Storage

BATCH_ROWS = 2048
STATUSES = ("unknown", "again", "failed", "done")
"""By their numbers in `job_rows.py`."""


@dataclass
class RowBatch:
    """Some rows (n), ordinals ascending. `vectors` or `responses` are those of the rows that are done.

    `statuses` are indices of STATUSES. `codes` and `messages` are None for rows that are done.
    """

    ordinals: npt.NDArray[np.int64]
    statuses: npt.NDArray[np.uint8]
    tokens: npt.NDArray[np.int32]
    output_tokens: npt.NDArray[np.int32]
    attempts: npt.NDArray[np.int32]
    codes: list[str | None]
    messages: list[str | None]
    vectors: npt.NDArray[np.float32] | None = None
    responses: list[str] | None = None

    @property
    def done(self) -> npt.NDArray[np.bool_]:
        return self.statuses == STATUSES.index("done")


def write_rows(
    storage: Storage, path: str, batches: Iterable[RowBatch], dimensions: int, generated: bool
) -> DataFile:
    """Write the rows; `dimensions` is 0 where there are no vectors. Streams."""
    schema = _schema(dimensions, generated)
    writer = GroupedWriter(storage, path, schema)
    try:
        for batch in batches:
            writer.append(_table(batch, schema))
        return writer.close()
    except BaseException:
        writer.abort()
        raise


def read_rows(storage: Storage, path: str) -> Iterator[RowBatch]:
    """The rows, batch by batch. Raises AccountingError for a file that is missing, damaged or none of these."""
    with open_parquet(storage, path) as file:
        found = set(file.schema_arrow.names)
        if missing := set(_schema(0, False).names) - found:
            raise AccountingError(f"{path}: no kept rows: has no column {', '.join(sorted(missing))}")
        for batch in file.iter_batches(BATCH_ROWS, use_threads=False):
            yield _batch(batch)


def _schema(dimensions: int, generated: bool) -> pa.Schema:
    fields: list[Any] = [
        pa.field("ordinal", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
    ]
    if generated:
        fields.append(pa.field(RESPONSE, pa.string()))
    elif dimensions:
        element = pa.field("element", pa.float32(), nullable=False)
        fields.append(pa.field(EMBEDDING, pa.list_(element, dimensions)))
    fields += [
        pa.field("tokens", pa.int32(), nullable=False),
        pa.field("output_tokens", pa.int32(), nullable=False),
        pa.field("code", pa.string()),
        pa.field("message", pa.string()),
        pa.field("attempts", pa.int32(), nullable=False),
    ]
    return pa.schema(fields)


def _table(batch: RowBatch, schema: pa.Schema) -> pa.Table:
    arrays: dict[str, Any] = {
        "ordinal": pa.array(batch.ordinals),
        "status": pa.array([STATUSES[status] for status in batch.statuses], type=pa.string()),
        "tokens": pa.array(batch.tokens),
        "output_tokens": pa.array(batch.output_tokens),
        "code": pa.array(batch.codes, type=pa.string()),
        "message": pa.array(batch.messages, type=pa.string()),
        "attempts": pa.array(batch.attempts),
    }
    done = batch.done
    if EMBEDDING in schema.names:
        vector_type = schema.field(EMBEDDING).type
        values = np.zeros((len(done), vector_type.list_size), dtype=np.float32)
        if batch.vectors is not None:
            values[done] = batch.vectors
        arrays[EMBEDDING] = pa.FixedSizeListArray.from_arrays(
            pa.array(values.reshape(-1)), type=vector_type, mask=pa.array(~done)
        )
    if RESPONSE in schema.names:
        responses = iter(batch.responses or ())
        arrays[RESPONSE] = pa.array([next(responses) if one else None for one in done], type=pa.string())
    return pa.table([arrays[name] for name in schema.names], schema=schema)


def _batch(found: pa.RecordBatch) -> RowBatch:
    def numbers(name: str) -> npt.NDArray[Any]:
        return found.column(name).to_numpy(zero_copy_only=False)

    statuses = [STATUSES.index(status) for status in found.column("status").to_pylist()]
    batch = RowBatch(
        ordinals=numbers("ordinal"),
        statuses=np.array(statuses, dtype=np.uint8),
        tokens=numbers("tokens"),
        output_tokens=numbers("output_tokens"),
        attempts=numbers("attempts"),
        codes=found.column("code").to_pylist(),
        messages=found.column("message").to_pylist(),
    )
    if EMBEDDING in found.schema.names:
        # `flatten` leaves out the rows that have no vector.
        column = found.column(EMBEDDING)
        batch.vectors = column.flatten().to_numpy().reshape(-1, column.type.list_size)
    if RESPONSE in found.schema.names:
        batch.responses = [text for text in found.column(RESPONSE).to_pylist() if text is not None]
    return batch
