"""Result files and manifests of a job: which record has an answer, which failed, which goes again.

Lines are joined to records by `recordId`, in whatever order they come; one that cannot be
read costs itself alone. Where in an answer the result is, is the family's business; whether
files are all there, and what becomes of records without a line, that of whoever calls.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from batch_assets.embeddings.job_rows import JobRows
from batch_assets.executors.aws.results import LineParser, Tally, ordinal_of, split_lines, take_vectors
from batch_assets.executors.bedrock.families.base import Answer, BadAnswer, Family
from batch_assets.executors.bedrock.record_errors import Verdict, judge
from batch_assets.storage import Storage

BAD_OUTPUT = "bad_output"
_BLOCK_ROWS = 256


@dataclass(frozen=True)
class ManifestCounts:
    """What a job's `manifest.json.out` counts, over all its files; None where it does not say."""

    total: int | None
    processed: int | None
    succeeded: int | None
    failed: int | None
    input_tokens: int | None
    output_tokens: int | None


def read_manifest(data: bytes) -> ManifestCounts | None:
    """The counts of a manifest; None for what is no JSON object, such as one that is not yet whole."""
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, dict):
        return None

    def count(name: str) -> int | None:
        value = found.get(name)
        return value if type(value) is int and value >= 0 else None

    return ManifestCounts(
        count("totalRecordCount"),
        count("processedRecordCount"),
        count("successRecordCount"),
        count("errorRecordCount"),
        count("inputTokenCount"),
        count("outputTokenCount"),
    )


def read_results(
    storage: Storage,
    paths: Iterable[str],
    rows: JobRows,
    family: Family,
    attempt: int = 1,
    first_id: int = 0,
) -> Tally:
    """Sort every line of some result files into `rows`: those of the records' `attempt`, from 1.

    `first_id` is the record id of ordinal 0. Streams. Raises FileNotFoundError, StorageError.
    """
    sorter = ResultSorter(rows, family, attempt, first_id)
    for path in paths:
        for line in split_lines(storage.stream(path)):
            sorter.add_line(line)
    sorter.flush()
    return sorter.tally


class ResultSorter:
    """Takes lines, or single answers and errors of `InvokeModel`, into `rows`; `flush` ends it."""

    def __init__(self, rows: JobRows, family: Family, attempt: int = 1, first_id: int = 0) -> None:
        self.tally = Tally()
        self._rows = rows
        self._family = family
        self._attempt = attempt
        self._first_id = first_id
        self._parser = LineParser()
        self._vectors: list[memoryview] = []
        self._ordinals: list[int] = []
        self._tokens: list[int] = []

    def add_line(self, line: bytes) -> None:
        """Sort one line of a result file."""
        self.tally.lines += 1
        record = self._parser.parse_object(line)
        if record is None:
            self.tally.unreadable += 1
            return
        fields = list(record)  # to ask simdjson for a key that is not there is dear
        record_id = record["recordId"] if "recordId" in fields else None
        ordinal = ordinal_of(record_id, self._rows.records, self._first_id)
        error = record["error"] if "error" in fields else None
        if ordinal is None:
            self.tally.foreign += 1
        elif error is not None:
            self.add_error(ordinal, error.as_dict() if hasattr(error, "as_dict") else error)
        else:
            self.add_output(ordinal, record["modelOutput"] if "modelOutput" in fields else None)

    def add_output(self, ordinal: int, output: Any) -> None:
        """Take a `modelOutput`: a dict, or simdjson's view of one. What holds no result goes again."""
        try:
            if output is None:
                raise BadAnswer("neither an output nor an error")
            answer = self._family.answer(output)
        except BadAnswer as error:
            self._again(ordinal, str(error))
            return
        if answer.vector is None:
            self._respond(ordinal, answer)
            return
        self._vectors.append(answer.vector)
        self._ordinals.append(ordinal)
        self._tokens.append(answer.input_tokens)
        if len(self._ordinals) == _BLOCK_ROWS:
            self.flush()

    def add_error(self, ordinal: int, error: Any) -> None:
        """Take an error as the service words it: an object of errorCode, errorMessage, retryable, expired."""
        verdict: Verdict = judge(error, self._family.truncate)
        if not verdict.final:
            self.tally.note_again(self._rows, ordinal, verdict.code, verdict.message)
            return
        new = self._rows.fail(ordinal, verdict.code, verdict.message, self._attempt)
        self.tally.failed += new
        self.tally.doubled += not new

    def _again(self, ordinal: int, message: str) -> None:
        self.tally.note_again(self._rows, ordinal, BAD_OUTPUT, message)

    def _respond(self, ordinal: int, answer: Answer) -> None:
        self.tally.note_response(self._rows, ordinal, answer.text, answer.input_tokens, answer.output_tokens)

    def flush(self) -> None:
        """Take the vectors that wait into the rows."""
        count = len(self._ordinals)
        if not count:
            return
        vectors = np.frombuffer(b"".join(self._vectors)).reshape(count, -1)
        taken = take_vectors(
            self._rows, self._ordinals, vectors, self._tokens, normalize=self._family.normalize
        )
        self.tally.embedded += taken.embedded
        self.tally.doubled += taken.doubled
        self.tally.input_tokens += taken.tokens
        for ordinal, why in taken.bad:
            self._again(ordinal, why)
        self._vectors, self._ordinals, self._tokens = [], [], []
