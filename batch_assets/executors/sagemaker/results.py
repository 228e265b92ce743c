"""Result objects of a job: which record has an answer, and which goes again.

Lines are joined to records by their id, in whatever order they come; one that cannot be read
costs itself alone. Where in an answer the result is stands in `answers.py`; which objects there
are, and what becomes of records without a line, in `fetching.py`.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.schema import EMBED
from batch_assets.executors.aws.results import LineParser, Tally, ordinal_of, split_lines, take_vectors
from batch_assets.executors.sagemaker.answers import (
    Answer,
    AnswerFormat,
    BadAnswer,
    TokenLevel,
    csv_answer,
    csv_parts,
)
from batch_assets.executors.sagemaker.expectations import Expectations, Odd
from batch_assets.executors.sagemaker.requests import ID, OUTPUT
from batch_assets.storage import FileInfo, Storage
from batch_assets.storage.threads import map_in_order, threads_for

BAD_OUTPUT = "bad_output"
SMALL_BYTES = 2**20
_BLOCK_ROWS = 256


def read_results(storage: Storage, files: Sequence[FileInfo], rows: JobRows, expected: AnswerFormat) -> Tally:
    """Sort every line of some result objects into `rows`. Streams; small objects come several at a time.

    Raises UnexpectedOutput, FileNotFoundError, StorageError.
    """
    sorter = ResultSorter(rows, expected)
    small = [file.path for file in files if file.size <= SMALL_BYTES]
    for content in map_in_order(storage.read, small, threads_for(storage)):
        for line in split_lines([content]):
            sorter.add_line(line)
    for file in files:
        if file.size > SMALL_BYTES:
            for line in split_lines(storage.stream(file.path)):
                sorter.add_line(line)
    sorter.end()
    return sorter.tally


class ResultSorter:
    """Takes lines into `rows`; `end` ends it. Both raise UnexpectedOutput."""

    def __init__(self, rows: JobRows, expected: AnswerFormat) -> None:
        self.tally = Tally()
        self._rows = rows
        self._expected = expected
        self._parser = LineParser()
        self._expectations = Expectations(settled=rows.counts.embedded > 0)
        # As containers answer, before anything is cut off: not known where the rows are cut ones.
        self._width = (rows.dimensions or expected.width) if expected.dimensions is None else None
        self._vectors: list[memoryview] = []
        self._ordinals: list[int] = []
        self._tokens: list[int] = []

    def add_line(self, line: bytes) -> None:
        """Sort one line of a result object."""
        self.tally.lines += 1
        if self._expected.csv:
            parts = csv_parts(line)
            if parts is None:
                self.tally.unreadable += 1
                return
            ordinal, output = ordinal_of(parts[0], self._rows.records), parts[1]
        else:
            record = self._parser.parse_object(line)
            if record is None:
                self.tally.unreadable += 1
                return
            fields = list(record)  # to ask simdjson for a key that is not there is dear
            ordinal = ordinal_of(record[ID], self._rows.records) if ID in fields else None
            output = record[OUTPUT] if OUTPUT in fields else None
        if ordinal is None:
            self.tally.foreign += 1
        else:
            self._add_output(ordinal, output)

    def _add_output(self, ordinal: int, output: Any) -> None:
        """Take what a container has answered; what holds no result goes again."""
        try:
            answer = self._expected.read(self._columns(output) if self._expected.csv else output)
        except BadAnswer as error:
            words = str(error)
            self._expectations.odd(Odd.TOKENS if isinstance(error, TokenLevel) else Odd.UNREADABLE, words)
            self._again(ordinal, words)
            return
        if answer.vector is None:
            self._respond(ordinal, answer)
        elif self._is_wide_enough(ordinal, answer.vector):
            self._vectors.append(answer.vector)
            self._ordinals.append(ordinal)
            self._tokens.append(answer.input_tokens)
            if len(self._ordinals) == _BLOCK_ROWS:
                self._flush()

    def _columns(self, columns: bytes) -> Any:
        if self._expected.task == EMBED:
            try:
                return self._parser.parse(b"[" + columns + b"]")  # a row of numbers is JSON, too
            except (ValueError, RuntimeError):
                pass
        return csv_answer(columns, self._expected.task)

    def _is_wide_enough(self, ordinal: int, vector: memoryview) -> bool:
        found, least = vector.nbytes // 8, self._expected.dimensions
        if least is not None and found < least:
            wanted = f"model.dimensions wants the first {least:,}"
        elif self._width is not None and found != self._width:
            wanted = f"the shards and records before it have {self._width:,}"
        else:
            self._expectations.good()
            return True
        words = f"the answer has {found:,} numbers, where {wanted}"
        self._expectations.odd(Odd.WIDTH, words)
        self._again(ordinal, words)
        return False

    def _again(self, ordinal: int, message: str) -> None:
        self.tally.note_again(self._rows, ordinal, BAD_OUTPUT, message)

    def _respond(self, ordinal: int, answer: Answer) -> None:
        self._expectations.good()
        self.tally.note_response(self._rows, ordinal, answer.text, answer.input_tokens, answer.output_tokens)

    def end(self) -> None:
        """All lines have come."""
        self._flush()
        self._expectations.end()

    def _flush(self) -> None:
        """Take the vectors that wait into the rows, those of the commonest width where it is not known."""
        if not self._ordinals:
            return
        widths = [vector.nbytes // 8 for vector in self._vectors]
        if self._width is None:
            self._width = Counter(widths).most_common(1)[0][0]
        places = [place for place, width in enumerate(widths) if width == self._width]
        if places:
            self._take(places)
        for ordinal, width in zip(self._ordinals, widths, strict=True):
            if width != self._width:
                self._again(ordinal, f"the answer has {width:,} numbers, where others have {self._width:,}")
        self._vectors, self._ordinals, self._tokens = [], [], []

    def _take(self, places: list[int]) -> None:
        ordinals = [self._ordinals[place] for place in places]
        content = b"".join(self._vectors[place] for place in places)
        vectors: npt.NDArray[np.float64] = np.frombuffer(content).reshape(len(places), -1)
        taken = take_vectors(
            self._rows,
            ordinals,
            vectors[:, : self._expected.dimensions],
            [self._tokens[place] for place in places],
            normalize=self._expected.normalize,
        )
        self.tally.embedded += taken.embedded
        self.tally.doubled += taken.doubled
        self.tally.input_tokens += taken.tokens
        for ordinal, why in taken.bad:
            self._again(ordinal, why)
