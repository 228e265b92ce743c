"""Lines of results, sorted: which record has an answer, which failed, which goes again.

Lines are joined to records by their id, in whatever order they come; one that cannot be read costs
itself alone. What a line holds is each service's business; which files there are, and what becomes
of records without a line, is for whoever fetches them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from batch_assets.embeddings.job_rows import JobRows
from batch_assets.executors.aws.answers import Answer
from batch_assets.executors.aws.requests import ordinal_of
from batch_assets.executors.aws.results import LineParser, Tally, take_vectors

BAD_OUTPUT = "bad_output"
BLOCK_ROWS = 256


class ResultSorter(ABC):
    """Takes lines into `rows`, vectors in blocks; `flush` ends it.

    `normalize` has vectors scaled to length 1, of their first `dimensions` numbers (None: of all).
    `first_id` is the record id of ordinal 0.
    """

    def __init__(
        self, rows: JobRows, *, normalize: bool, dimensions: int | None = None, first_id: int = 0
    ) -> None:
        self.tally = Tally()
        self._rows = rows
        self._normalize = normalize
        self._dimensions = dimensions
        self._first_id = first_id
        self._parser = LineParser()
        self._vectors: list[memoryview] = []
        self._ordinals: list[int] = []
        self._tokens: list[int] = []

    @abstractmethod
    def _read(self, line: bytes) -> tuple[Any, Any] | None:
        """The record id in a line, and what it says of the record; None for what is no such line."""

    @abstractmethod
    def _sort(self, ordinal: int, said: Any) -> None:
        """Take what a line says of a record."""

    def add_line(self, line: bytes) -> None:
        """Sort one line of a result file."""
        self.tally.lines += 1
        found = self._read(line)
        if found is None:
            self.tally.unreadable += 1
            return
        ordinal = ordinal_of(found[0], self._rows.records, self._first_id)
        if ordinal is None:
            self.tally.foreign += 1
        else:
            self._sort(ordinal, found[1])

    def _take(self, ordinal: int, answer: Answer) -> None:
        """Take a result."""
        if answer.vector is None:
            self.tally.note_response(
                self._rows, ordinal, answer.text, answer.input_tokens, answer.output_tokens
            )
            return
        self._vectors.append(answer.vector)
        self._ordinals.append(ordinal)
        self._tokens.append(answer.input_tokens)
        if len(self._ordinals) == BLOCK_ROWS:
            self.flush()

    def _again(self, ordinal: int, message: str) -> None:
        """The answer is of no use."""
        self.tally.note_again(self._rows, ordinal, BAD_OUTPUT, message)

    def flush(self) -> None:
        """Take the vectors that wait into the rows."""
        if self._ordinals:
            self._take_block(self._ordinals, self._vectors, self._tokens)
            self._vectors, self._ordinals, self._tokens = [], [], []

    def _take_block(
        self, ordinals: Sequence[int], vectors: Sequence[memoryview], tokens: Sequence[int]
    ) -> None:
        """Take vectors of one width."""
        values: npt.NDArray[np.float64] = np.frombuffer(b"".join(vectors)).reshape(len(vectors), -1)
        values = values[:, : self._dimensions]
        taken = take_vectors(self._rows, ordinals, values, tokens, normalize=self._normalize)
        self.tally.embedded += taken.embedded
        self.tally.doubled += taken.doubled
        self.tally.input_tokens += taken.tokens
        for ordinal, why in taken.bad:
            self._again(ordinal, why)
