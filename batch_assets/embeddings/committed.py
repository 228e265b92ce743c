"""The rows of a committed shard, met again in source order by file and row: they carry no ordinal.

Whether a commit counts, and what is then done with its rows, is for the caller to know.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.parquet_files import open_parquet
from batch_assets.embeddings.schema import EMBEDDING, TOKEN_COUNT
from batch_assets.sources.base import Records
from batch_assets.storage import Storage

ROWS_AT_ONCE = 2_000


def load_committed(
    storage: Storage, path: str, shard: Iterable[Records], rows: JobRows
) -> npt.NDArray[np.int64]:
    """Take the embedded rows of the data file `path` into `rows`; the ordinals of all the shard's valid records."""
    committed = _committed_rows(storage, path)
    head = next(committed, None)
    valid: list[int] = []
    for records in shard:
        origins = zip(records.ordinals, records.source_files, records.source_rows, strict=True)
        ordinals: list[int] = []
        values: list[dict[str, Any]] = []
        for ordinal, file, row in origins:
            valid.append(ordinal)
            if head is not None and (head["source_file"], head["source_row"]) == (file, row):
                ordinals.append(ordinal)
                values.append(head)
                head = next(committed, None)
        _take(rows, ordinals, values)
    return np.array(valid, dtype=np.int64)


def _take(rows: JobRows, ordinals: list[int], values: list[dict[str, Any]]) -> None:
    if not ordinals:
        return
    if "response" in values[0]:
        for ordinal, value in zip(ordinals, values, strict=True):
            rows.respond(ordinal, value["response"], value["input_tokens"], value["output_tokens"])
        return
    vectors = np.stack([value[EMBEDDING] for value in values]).astype(np.float32)
    rows.embed_many(ordinals, vectors, [value[TOKEN_COUNT] for value in values])


def _committed_rows(storage: Storage, path: str) -> Iterator[dict[str, Any]]:
    """The rows of a committed file with what makes an outcome, one by one."""
    with open_parquet(storage, path) as file:
        answers = "response" in file.schema_arrow.names and EMBEDDING not in file.schema_arrow.names
        values = ["response", "input_tokens", "output_tokens"] if answers else [EMBEDDING, TOKEN_COUNT]
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=["source_file", "source_row", *values]):
            columns = {name: _plain(batch.column(name)) for name in batch.schema.names}
            for place in range(batch.num_rows):
                yield {name: column[place] for name, column in columns.items()}


def _plain(column: pa.Array) -> Any:
    if pa.types.is_fixed_size_list(column.type):
        return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return column.to_pylist()
