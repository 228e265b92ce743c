"""Rows that are paid for already and are not asked for again: of a commit, and of earlier attempts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pydantic

from batch_assets import paths
from batch_assets.control.pipeline import Pipeline
from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.parquet_files import open_parquet
from batch_assets.embeddings.schema import EMBEDDING, TOKEN_COUNT
from batch_assets.sharding.plan import Shard
from batch_assets.sharding.reading import read_shard
from batch_assets.storage import Storage

ROWS_AT_ONCE = 2_000


@dataclass(frozen=True)
class AttemptMarker:
    """`attempt.json`: what one attempt settled of a shard that needs another one. `job` is the fence of its job."""

    shard: str
    fence: int
    job: int
    attempt: int
    service_job: str
    embedded: int
    failed: int
    again: int
    reasons: dict[str, int]
    input_tokens: int
    output_tokens: int
    cost_usd: float | None


_ATTEMPT = pydantic.TypeAdapter(AttemptMarker)


def write_attempt(storage: Storage, marker: AttemptMarker) -> None:
    """Written after the rows: with it they count."""
    content = orjson.dumps(marker, option=orjson.OPT_INDENT_2)
    storage.write(paths.attempt_marker(marker.shard, marker.fence), content + b"\n")


def read_attempt(storage: Storage, shard: str, fence: int) -> AttemptMarker | None:
    """What an attempt settled; None where it never came to that."""
    found = storage.read_versioned(paths.attempt_marker(shard, fence))
    return None if found is None else _ATTEMPT.validate_json(found[0])


def load_commit(pipeline: Pipeline, shard: Shard, fence: int, rows: JobRows) -> npt.NDArray[np.int64]:
    """Take the embedded rows of a commit into `rows`; the ordinals of all the shard's valid records.

    Rows of a commit carry no ordinal: they are met again in source order, by file and row.
    """
    committed = _committed_rows(pipeline.storage, paths.embeddings(shard.key, fence))
    head = next(committed, None)
    valid: list[int] = []
    for records in read_shard(pipeline.settings, shard, pipeline.summary_of(shard.key), pipeline.storage):
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
