"""Writes a shard's two data files from the outcomes of its records, in source order.

Files are written behind the caller's back, by one thread, so that a model is not held up.
They count for nothing until `marker.py` commits them.
"""

from collections import Counter, deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch_assets import paths
from batch_assets.crash_points import crash_point
from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.embeddings.parquet_files import GROUP_ROWS, DataFile, GroupedWriter
from batch_assets.embeddings.schema import (
    EMBED,
    FAILURES_SCHEMA,
    GENERATE,
    INFERENCE,
    REJECT,
    Task,
    data_schema,
    refuse_reserved,
)
from batch_assets.embeddings.tables import check_complete, embedded_table, failures_table, responses_table
from batch_assets.embeddings.validation import Norms, Vectors, validate_vectors
from batch_assets.storage import Storage

BATCHES_BEHIND = 2


@dataclass(frozen=True)
class ShardFiles:
    """A shard's finished data files and what was learnt in writing them; see `ShardMarker` for the terms."""

    embeddings: DataFile
    failures: DataFile
    rejected: int
    failed: int
    tokens: int
    dimensions: int
    vector_dtype: str
    normalized: bool
    columns: dict[str, str]
    norms: dict[str, float]
    token_histogram: dict[int, int] = field(default_factory=dict)
    task: Task = EMBED
    output_tokens: int = 0

    @property
    def embedded(self) -> int:
        return self.embeddings.rows

    @property
    def files(self) -> list[DataFile]:
        return [self.embeddings, self.failures]

    @property
    def bytes(self) -> int:
        return self.embeddings.bytes + self.failures.bytes


class ShardWriter:
    """The two data files of one claim on a shard. End with `close`, or with `abort`.

    `columns` maps passed-through columns to plan types; `vector_dtype` is float32 or float16;
    `normalized` says whether vectors must have length 1 (normalize in float32: the tolerance
    is 1e-3). `run`: see `paths.embeddings`. The dimension is that of the first vectors. Where the
    `task` is `generate` there are no vectors, and neither of the two counts. A row group has
    `group_rows` at most.
    """

    def __init__(
        self,
        storage: Storage,
        shard: str,
        fence: int,
        columns: Mapping[str, str],
        vector_dtype: str,
        *,
        normalized: bool = True,
        task: Task = EMBED,
        run: int = 0,
        group_rows: int = GROUP_ROWS,
    ) -> None:
        refuse_reserved(columns, task)
        self._storage = storage
        self._shard = shard
        self._path = paths.embeddings(shard, fence, run)
        self._columns = dict(columns)
        self._group_rows = group_rows
        self._task: Task = task
        self._vector_dtype = vector_dtype if task == EMBED else ""
        self._normalized = normalized and task == EMBED
        self._dimensions: int | None = None
        self._next_ordinal = 0
        self._norms = Norms()
        self._stages: Counter[str] = Counter()
        self._tokens = 0
        self._output_tokens = 0
        self._lengths = np.zeros(32, dtype=np.int64)
        self._embeddings: GroupedWriter | None = None
        self._failures = GroupedWriter(storage, paths.failures(shard, fence, run), FAILURES_SCHEMA)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"write-{shard}")
        self._behind: deque[Future[None]] = deque()

    def write(self, outcomes: Outcomes) -> None:
        """Add the next stretch of records; its arrays must not be changed afterwards.

        Raises ValueError (VectorError for unsound vectors) before anything of it is stored, and
        whatever the storage raised over an earlier one.
        """
        rejected = check_complete(outcomes, self._next_ordinal, self._shard, self._task)
        norms, found = Norms(), None
        if len(outcomes.rows) and self._task == GENERATE:
            found = responses_table(outcomes, self._schema())
        elif len(outcomes.rows):
            vectors = self._to_store(outcomes)
            norms = validate_vectors(vectors, self._dimensions or 0, self._normalized)
            found = embedded_table(outcomes, vectors, self._schema())
        failures = failures_table(outcomes)
        self._next_ordinal += len(outcomes.records) + rejected
        self._norms.add(norms)
        bad = sum(failure.rejected for failure in outcomes.failures)
        self._stages.update({REJECT: rejected + bad, INFERENCE: len(outcomes.failures) - bad})
        self._tokens += int(outcomes.token_counts.sum(dtype=np.int64))
        if outcomes.output_tokens is not None:
            self._output_tokens += int(outcomes.output_tokens.sum(dtype=np.int64))
        self._lengths += np.bincount(_bit_lengths(outcomes.token_counts), minlength=32)
        while len(self._behind) >= BATCHES_BEHIND:
            self._behind.popleft().result()
        self._behind.append(self._thread.submit(self._store, found, failures))

    def _schema(self) -> pa.Schema:
        return data_schema(self._columns, self._dimensions or 0, self._vector_dtype, self._task)

    def _to_store(self, outcomes: Outcomes) -> Vectors:
        if self._dimensions is None:
            self._dimensions = outcomes.vectors.shape[1]
        # An element beyond float16's range becomes infinite, which the check then refuses.
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(outcomes.vectors, dtype=self._vector_dtype)

    def _store(self, found: pa.Table | None, failures: pa.Table) -> None:
        if found is not None:
            self._open_embeddings(found.schema).append(found)
        self._failures.append(failures)
        crash_point("rows-stored")

    def _open_embeddings(self, schema: pa.Schema) -> GroupedWriter:
        if self._embeddings is None:
            self._embeddings = GroupedWriter(self._storage, self._path, schema, group_rows=self._group_rows)
        return self._embeddings

    def close(self, dimensions: int | None = None) -> ShardFiles:
        """Finish both files; durable when this returns.

        `dimensions` is what the model has; it is needed where no record was embedded, and checked
        where one was.
        """
        if self._task == GENERATE:
            self._dimensions = 0
        elif self._dimensions is None:
            self._dimensions = dimensions
        elif dimensions and dimensions != self._dimensions:
            raise ValueError(
                f"vectors have {self._dimensions} dimensions, the model is said to have {dimensions}"
            )
        while self._behind:
            self._behind.popleft().result()
        embeddings = self._open_embeddings(self._schema()).close()
        failures = self._failures.close()
        self._thread.shutdown()
        crash_point("shard-files-written")
        return ShardFiles(
            embeddings=embeddings,
            failures=failures,
            rejected=self._stages[REJECT],
            failed=self._stages[INFERENCE],
            tokens=self._tokens,
            dimensions=self._dimensions or 0,
            vector_dtype=self._vector_dtype,
            normalized=self._normalized,
            columns=self._columns,
            norms=self._norms.summary(),
            token_histogram=_histogram(self._lengths),
            task=self._task,
            output_tokens=self._output_tokens,
        )

    def abort(self) -> None:
        """Give up: wait for the thread, remove what was written. Harmless after `close` has failed."""
        self._thread.shutdown(cancel_futures=True)
        for writer in (self._embeddings, self._failures):
            if writer is not None:
                writer.abort()


def _bit_lengths(counts: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Bits of each number: `frexp` gives the exponent e of a number in [2^(e-1), 2^e)."""
    return np.frexp(counts.astype(np.float64))[1]


def _histogram(lengths: npt.NDArray[np.int64]) -> dict[int, int]:
    return {(1 << bits) >> 1: int(count) for bits, count in enumerate(lengths) if count}
