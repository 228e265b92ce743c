"""Result files and manifests of a job: what a line says of its record, and what the manifest counts.

How lines become rows is in `aws/sorting.py`; where in an answer the result is, is the family's
business; whether files are all there, and what becomes of records without a line, that of whoever
calls.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from batch_assets.embeddings.job_rows import JobRows
from batch_assets.executors.aws.answers import BadAnswer
from batch_assets.executors.aws.results import Tally, split_lines
from batch_assets.executors.aws.sorting import ResultSorter
from batch_assets.executors.bedrock.families.base import Family
from batch_assets.executors.bedrock.record_errors import Verdict, judge
from batch_assets.storage import Storage


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
    sorter = BedrockSorter(rows, family, attempt, first_id)
    for path in paths:
        for line in split_lines(storage.stream(path)):
            sorter.add_line(line)
    sorter.flush()
    return sorter.tally


class BedrockSorter(ResultSorter):
    """Takes lines that look as a job's: of the records' `attempt`, from 1."""

    def __init__(self, rows: JobRows, family: Family, attempt: int = 1, first_id: int = 0) -> None:
        super().__init__(rows, normalize=family.normalize, first_id=first_id)
        self._family = family
        self._attempt = attempt

    def _read(self, line: bytes) -> tuple[Any, Any] | None:
        record = self._parser.parse_object(line)
        if record is None:
            return None
        fields = list(record)  # to ask simdjson for a key that is not there is dear
        error = record["error"] if "error" in fields else None
        output = record["modelOutput"] if "modelOutput" in fields else None
        return record["recordId"] if "recordId" in fields else None, (error, output)

    def _sort(self, ordinal: int, said: tuple[Any, Any]) -> None:
        error, output = said
        if error is not None:
            self._take_error(ordinal, error.as_dict() if hasattr(error, "as_dict") else error)
            return
        try:
            if output is None:
                raise BadAnswer("neither an output nor an error")
            answer = self._family.answer(output)
        except BadAnswer as bad:
            self._again(ordinal, str(bad))
        else:
            self._take(ordinal, answer)

    def _take_error(self, ordinal: int, error: Any) -> None:
        """Take an error as the service words it: an object of errorCode, errorMessage, retryable, expired."""
        verdict: Verdict = judge(error, self._family.truncate)
        if not verdict.final:
            self.tally.note_again(self._rows, ordinal, verdict.code, verdict.message)
            return
        new = self._rows.fail(ordinal, verdict.code, verdict.message, self._attempt)
        self.tally.failed += new
        self.tally.doubled += not new
