"""Result files and manifests of a job: which record has an answer, which failed, which goes again.

Lines are joined to records by `recordId`, in whatever order they come; one that cannot be
read costs itself alone. Where in an answer the result is, is the family's business; whether
files are all there, and what becomes of records without a line, that of whoever calls.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.validation import vector_norms
from batch_assets.executors.bedrock.families.base import Answer, BadAnswer, Family
from batch_assets.executors.bedrock.record_errors import Verdict, judge
from batch_assets.executors.bedrock.requests import RECORD_ID_DIGITS
from batch_assets.storage import Storage

BAD_OUTPUT = "bad_output"
_BLOCK_ROWS = 256
_LONGEST_LINE = 64 * 2**20
# How far from 1 a length may be before a vector is scaled: float32 noise of a model that
# normalizes stays as it came, and what is farther off would come near the writer's 1e-3.
_LENGTH_NOISE = 1e-4


@dataclass
class Tally:
    """Lines of result files: each is of exactly one of the kinds `embedded` to `foreign`.

    `embedded` are answers, too. `doubled` told nothing new of their record, `unreadable` are no
    JSON object, `foreign` are of no record of the shard. Tokens are those of answers taken.
    """

    lines: int = 0
    embedded: int = 0
    failed: int = 0
    again: int = 0
    unreadable: int = 0
    doubled: int = 0
    foreign: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


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


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines without their ends, blank ones left out; one beyond all reason comes cut, and so unreadable."""
    rest = b""
    skipping = False
    for chunk in chunks:
        start = 0
        # `find` looks for many bytes at once; `split` and files' own iteration do not.
        while (end := chunk.find(b"\n", start)) >= 0:
            line = chunk[start:end] if start else rest + chunk[:end] if not skipping else rest
            start = end + 1
            skipping = False
            if line and not line.isspace():
                yield line
        rest = chunk[start:] if start else rest if skipping else rest + chunk
        if len(rest) > _LONGEST_LINE:
            skipping, rest = True, rest[:100]
    if rest and not rest.isspace():
        yield rest


class ResultSorter:
    """Takes lines, or single answers and errors of `InvokeModel`, into `rows`; `flush` ends it."""

    def __init__(self, rows: JobRows, family: Family, attempt: int = 1, first_id: int = 0) -> None:
        import simdjson  # hands arrays of numbers over as they are: faster than making Python's

        self.tally = Tally()
        self._rows = rows
        self._family = family
        self._attempt = attempt
        self._first_id = first_id
        self._parser: Any = simdjson.Parser()
        self._vectors: list[memoryview] = []
        self._ordinals: list[int] = []
        self._tokens: list[int] = []

    def add_line(self, line: bytes) -> None:
        """Sort one line of a result file."""
        self.tally.lines += 1
        record = self._parse(line)
        if record is None:
            self.tally.unreadable += 1
            return
        fields = list(record)  # to ask simdjson for a key that is not there is dear
        ordinal = self._ordinal(record["recordId"]) if "recordId" in fields else None
        error = record["error"] if "error" in fields else None
        if ordinal is None:
            self.tally.foreign += 1
        elif error is not None:
            self.add_error(ordinal, error.as_dict() if hasattr(error, "as_dict") else error)
        else:
            self.add_output(ordinal, record["modelOutput"] if "modelOutput" in fields else None)

    def _parse(self, line: bytes) -> Any:
        """A JSON object: a dict, or simdjson's view of one, gone before the next is parsed. None: there is none."""
        try:
            record = self._parser.parse(line)
        except (ValueError, RuntimeError):
            # Python's own parser takes what JSON has not: NaN, numbers of any size, lone surrogates.
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                return None
        return record if hasattr(record, "keys") else None

    def _ordinal(self, record_id: Any) -> int | None:
        if not isinstance(record_id, str) or len(record_id) != RECORD_ID_DIGITS:
            return None
        if not (record_id.isascii() and record_id.isdigit()):
            return None
        ordinal = int(record_id) - self._first_id
        return ordinal if 0 <= ordinal < self._rows.records else None

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
        if verdict.final:
            new = self._rows.fail(ordinal, verdict.code, verdict.message, self._attempt)
            self.tally.failed += new
        else:
            new = self._rows.again(ordinal, verdict.code, verdict.message)
            self.tally.again += new
        self.tally.doubled += not new

    def _again(self, ordinal: int, message: str) -> None:
        new = self._rows.again(ordinal, BAD_OUTPUT, message)
        self.tally.again += new
        self.tally.doubled += not new

    def _respond(self, ordinal: int, answer: Answer) -> None:
        if not self._rows.respond(ordinal, answer.text, answer.input_tokens, answer.output_tokens):
            self.tally.doubled += 1
            return
        self.tally.embedded += 1
        self.tally.input_tokens += answer.input_tokens
        self.tally.output_tokens += answer.output_tokens

    def flush(self) -> None:
        """Take the vectors that wait into the rows."""
        count = len(self._ordinals)
        if not count:
            return
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and goes again
            vectors = np.frombuffer(b"".join(self._vectors)).reshape(count, -1).astype(np.float32)
        lengths = vector_norms(vectors)
        bad = ~np.isfinite(lengths)
        if self._family.normalize:
            self._normalize(vectors, lengths, bad)
        good = np.flatnonzero(~bad)
        ordinals = np.array(self._ordinals, dtype=np.int64)
        tokens = np.array(self._tokens, dtype=np.int32)
        taken = self._rows.embed_many(ordinals[good], vectors[good] if bad.any() else vectors, tokens[good])
        self.tally.embedded += len(taken)
        self.tally.doubled += len(good) - len(taken)
        self.tally.input_tokens += int(tokens[good][taken].sum(dtype=np.int64))
        for row in np.flatnonzero(bad).tolist():
            what = "has no direction" if np.isfinite(lengths[row]) else "is not finite"
            self._again(self._ordinals[row], f"the embedding {what}")
        self._vectors, self._ordinals, self._tokens = [], [], []

    @staticmethod
    def _normalize(
        vectors: np.ndarray[Any, np.dtype[np.float32]],
        lengths: np.ndarray[Any, np.dtype[np.float32]],
        bad: np.ndarray[Any, np.dtype[np.bool_]],
    ) -> None:
        """Scale to length 1 what is not, in place; what has no direction is `bad`."""
        off = np.flatnonzero(~bad & (np.abs(lengths - 1) > _LENGTH_NOISE))
        if len(off):
            exact = vectors[off].astype(np.float64)
            exact_lengths = np.linalg.norm(exact, axis=1, keepdims=True)
            bad[off] = exact_lengths[:, 0] == 0
            vectors[off] = exact / np.where(exact_lengths == 0, 1, exact_lengths)
