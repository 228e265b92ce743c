"""Result objects of a job: what a line says of its record, and whether answers are all as wide.

How lines become rows is in `aws/sorting.py`; where in an answer the result is, in `answers.py`;
which objects there are, and what becomes of records without a line, in `fetching.py`.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.schema import EMBED
from batch_assets.executors.aws.answers import BadAnswer
from batch_assets.executors.aws.results import Tally, split_lines
from batch_assets.executors.aws.sorting import ResultSorter
from batch_assets.executors.sagemaker.answers import AnswerFormat, TokenLevel, csv_answer, csv_parts
from batch_assets.executors.sagemaker.expectations import Expectations, Odd
from batch_assets.executors.sagemaker.requests import ID, OUTPUT
from batch_assets.storage import FileInfo, Storage
from batch_assets.storage.threads import map_in_order, threads_for

SMALL_BYTES = 2**20


def read_results(storage: Storage, files: Sequence[FileInfo], rows: JobRows, expected: AnswerFormat) -> Tally:
    """Sort every line of some result objects into `rows`. Streams; small objects come several at a time.

    Raises UnexpectedOutput, FileNotFoundError, StorageError.
    """
    sorter = TransformSorter(rows, expected)
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


class TransformSorter(ResultSorter):
    """Takes lines of a job whose answers are as `expected`; `end` ends it. Both raise UnexpectedOutput."""

    def __init__(self, rows: JobRows, expected: AnswerFormat) -> None:
        super().__init__(rows, normalize=expected.normalize, dimensions=expected.dimensions)
        self._expected = expected
        self._expectations = Expectations(settled=rows.counts.embedded > 0)
        # As containers answer, before anything is cut off: not known where the rows are cut ones.
        self._width = (rows.dimensions or expected.width) if expected.dimensions is None else None

    def _read(self, line: bytes) -> tuple[Any, Any] | None:
        if self._expected.csv:
            return csv_parts(line)
        record = self._parser.parse_object(line)
        if record is None:
            return None
        fields = list(record)  # to ask simdjson for a key that is not there is dear
        return record[ID] if ID in fields else None, record[OUTPUT] if OUTPUT in fields else None

    def _sort(self, ordinal: int, said: Any) -> None:
        try:
            answer = self._expected.read(self._columns(said) if self._expected.csv else said)
        except BadAnswer as error:
            words = str(error)
            self._expectations.odd(Odd.TOKENS if isinstance(error, TokenLevel) else Odd.UNREADABLE, words)
            self._again(ordinal, words)
            return
        if answer.vector is None or self._is_wide_enough(ordinal, answer.vector):
            self._expectations.good()
            self._take(ordinal, answer)

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
            return True
        words = f"the answer has {found:,} numbers, where {wanted}"
        self._expectations.odd(Odd.WIDTH, words)
        self._again(ordinal, words)
        return False

    def end(self) -> None:
        """All lines have come."""
        self.flush()
        self._expectations.end()

    def _take_block(
        self, ordinals: Sequence[int], vectors: Sequence[memoryview], tokens: Sequence[int]
    ) -> None:
        """Take the vectors of the commonest width, where it is not known."""
        widths = [vector.nbytes // 8 for vector in vectors]
        if self._width is None:
            self._width = Counter(widths).most_common(1)[0][0]
        fits = [place for place, width in enumerate(widths) if width == self._width]
        if fits:
            super()._take_block(
                [ordinals[place] for place in fits],
                [vectors[place] for place in fits],
                [tokens[place] for place in fits],
            )
        for ordinal, width in zip(ordinals, widths, strict=True):
            if width != self._width:
                self._again(ordinal, f"the answer has {width:,} numbers, where others have {self._width:,}")
