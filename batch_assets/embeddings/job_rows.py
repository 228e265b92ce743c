"""What the results of a job say of each record of a shard, in whatever order they come.

Vectors and answers lie on a temporary file, so memory is some bytes a record. How a service
writes its results is its executor's business; how rows are kept between two attempts is in
`job_rows_file.py`.
"""

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from batch_assets.embeddings.job_rows_file import BATCH_ROWS, RowBatch, read_rows, write_rows
from batch_assets.embeddings.job_states import DONE, FAILED, UNKNOWN, RowStates
from batch_assets.embeddings.job_values import TextFile, VectorFile
from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.embeddings.parquet_files import DataFile
from batch_assets.embeddings.reason_codes import MISSING
from batch_assets.errors import AccountingError
from batch_assets.sources.base import Records
from batch_assets.storage import Storage


class JobRows(RowStates):
    """The rows of ordinals 0 … `records` - 1. A context manager: its end removes the temporary file.

    The first vector fixes the dimension, unless `dimensions` does. A record has a vector or an
    answer, and which of both is the same for all. Rows may be told twice and in any order: an
    answer stands against everything else, a failure for good against another attempt.
    """

    def __init__(self, records: int, dimensions: int | None = None) -> None:
        super().__init__(records)
        self._places = np.full(records, -1, dtype=np.int64)
        self._tokens = np.zeros(records, dtype=np.int32)
        self._output_tokens = np.zeros(records, dtype=np.int32)
        self._vectors = VectorFile(dimensions) if dimensions else None
        self._responses: TextFile | None = None

    @property
    def dimensions(self) -> int:
        """Of the vectors; 0 as long as there are none."""
        return self._vectors.dimensions if self._vectors is not None else 0

    @property
    def generated(self) -> bool:
        """Whether the rows are answers."""
        return self._responses is not None

    def embed(self, ordinal: int, vector: npt.NDArray[np.float32] | bytes, tokens: int) -> bool:
        """Take a vector (dimensions,), or its bytes; False where the record has one already."""
        if isinstance(vector, bytes):
            vector = np.frombuffer(vector, dtype="<f4")
        return len(self.embed_many([ordinal], vector.reshape(1, -1), [tokens])) > 0

    def embed_many(
        self,
        ordinals: Sequence[int] | npt.NDArray[np.int64],
        vectors: npt.NDArray[np.float32],
        tokens: Sequence[int] | npt.NDArray[Any],
    ) -> npt.NDArray[np.int64]:
        """Take vectors (n, dimensions); returns the places in `ordinals` of those taken, ascending.

        Not taken is a record that has a vector already, here or further ahead in `ordinals`.
        Raises ValueError for another dimension or an ordinal that does not exist.
        """
        if self._responses is not None:
            raise ValueError("these rows are answers, they have no vectors")
        wanted = np.asarray(ordinals, dtype=np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= self.records):
            raise ValueError(
                f"ordinals {wanted.min()} to {wanted.max()} of a shard of {self.records} records"
            )
        if self._vectors is None:
            self._vectors = VectorFile(vectors.shape[1])
        if vectors.shape != (len(wanted), self._vectors.dimensions):
            raise ValueError(
                f"vectors of shape {vectors.shape}, where {len(wanted)} of {self._vectors.dimensions} "
                "dimensions are expected"
            )
        taken = np.flatnonzero(self._status[wanted] != DONE)
        _, firsts = np.unique(wanted[taken], return_index=True)
        if len(firsts) < len(taken):
            taken = taken[np.sort(firsts)]
        if len(taken):
            rows = wanted[taken]
            first = self._vectors.append(vectors if len(taken) == len(wanted) else vectors[taken])
            self._places[rows] = np.arange(first, first + len(taken))
            self._tokens[rows] = np.asarray(tokens, dtype=np.int32)[taken]
            self._status[rows] = DONE
        return taken

    def respond(self, ordinal: int, response: str, input_tokens: int, output_tokens: int) -> bool:
        """Take an answer; False where the record has one already."""
        if self._vectors is not None:
            raise ValueError("these rows are vectors, they have no answers")
        if self._responses is None:
            self._responses = TextFile()
        if self._status[self._checked(ordinal)] == DONE:
            return False
        self._places[ordinal] = self._responses.append(response)
        self._tokens[ordinal], self._output_tokens[ordinal] = input_tokens, output_tokens
        self._status[ordinal] = DONE
        return True

    def outcomes(self, records: Records) -> Outcomes:
        """What became of these records. One that nothing is known of is a failure `missing_result`.

        What is to be tried again are retryable failures.
        """
        ordinals = np.asarray(records.ordinals, dtype=np.int64)
        status = self._status[ordinals]
        rows = np.flatnonzero(status == DONE)
        done = ordinals[rows]
        failures = [self._failure(row, int(ordinals[row])) for row in np.flatnonzero(status != DONE).tolist()]
        outcomes = Outcomes(
            records, rows, np.empty((len(done), self.dimensions), np.float32), self._tokens[done], failures
        )
        if self._vectors is not None:
            outcomes.vectors = self._vectors.read(self._places[done])
        if self._responses is not None:
            outcomes.responses = self._responses.read(self._places[done].tolist())
            outcomes.output_tokens = self._output_tokens[done]
        return outcomes

    def save(self, storage: Storage, path: str) -> DataFile:
        """Keep all that is known in a Parquet file, by ordinal. Raises StorageError."""
        return write_rows(storage, path, self._batches(), self.dimensions, self.generated)

    def _batches(self) -> Iterator[RowBatch]:
        known = np.flatnonzero(self._status != UNKNOWN)
        for start in range(0, len(known), BATCH_ROWS):
            ordinals = known[start : start + BATCH_ROWS]
            done = ordinals[self._status[ordinals] == DONE]
            told = self._status[ordinals] != DONE
            reasons = [
                self._reason_list[number] if one else (None, None)
                for number, one in zip(self._reasons[ordinals].tolist(), told.tolist(), strict=True)
            ]
            places = self._places[done]
            yield RowBatch(
                ordinals=ordinals,
                statuses=self._status[ordinals],
                tokens=self._tokens[ordinals],
                output_tokens=self._output_tokens[ordinals],
                attempts=self._attempts[ordinals],
                codes=[code for code, _ in reasons],
                messages=[message for _, message in reasons],
                vectors=self._vectors.read(places) if self._vectors is not None else None,
                responses=self._responses.read(places.tolist()) if self._responses is not None else None,
            )

    def load(self, storage: Storage, path: str) -> None:
        """Add what `save` has kept; what is known already stands, even if it is only a reason to try again.

        Raises AccountingError for a file that is none of these rows'.
        """
        try:
            for batch in read_rows(storage, path):
                self._take(batch)
        except ValueError as error:
            raise AccountingError(f"{path}: no rows of this shard: {error}") from error

    def _take(self, batch: RowBatch) -> None:
        done = np.flatnonzero(batch.done)
        if batch.responses is not None:
            for row, response in zip(done.tolist(), batch.responses, strict=True):
                counts = int(batch.tokens[row]), int(batch.output_tokens[row])
                self.respond(int(batch.ordinals[row]), response, *counts)
        elif batch.vectors is not None and len(done):
            self.embed_many(batch.ordinals[done], batch.vectors, batch.tokens[done])
        for row in np.flatnonzero(~batch.done).tolist():
            ordinal = self._checked(int(batch.ordinals[row]))
            reason = batch.codes[row] or MISSING, batch.messages[row] or ""
            if batch.statuses[row] == FAILED:
                self.fail(ordinal, *reason, attempts=int(batch.attempts[row]))
            elif self._status[ordinal] == UNKNOWN:
                self.again(ordinal, *reason)

    def close(self) -> None:
        """Remove the temporary file."""
        for file in (self._vectors, self._responses):
            if file is not None:
                file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
