"""A batch's output and error files: one line for each line of its input, in that order, in one of the two.

They follow from the lines and from what became of the requests, so that files whose writing was cut short are written
again. When they are written is `batch_ending.py`'s.
"""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from batch_assets.control.batch_taking import is_taken
from batch_assets.errors import StorageError
from batch_assets.requests.batches.answers import Usage, answered, not_answered, usage_of
from batch_assets.requests.batches.files import OUTPUT, FileStore, NewFile, StoredFile, Written
from batch_assets.requests.batches.lines import FileError, LineReader, read_lines
from batch_assets.requests.batches.store import Batch
from batch_assets.requests.batches.taken import TakenLines
from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.results import COMPLETED, FAILED, IN_PROGRESS, QUEUED, Outcome, Results
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.storage import Output, Storage, open_storage

EXPIRED, CANCELLED = "batch_expired", "batch_cancelled"
WORDS = {
    EXPIRED: "the batch's completion_window ended before this request had",
    CANCELLED: "the batch was cancelled before this request had ended",
}


def withdrawn(code: str) -> str:
    """Why a shard of requests of such a batch alone is not computed."""
    return f"{code}: {WORDS[code]}"


class NotEnded(Exception):
    """A request of the batch is computed."""


@dataclass
class BatchFiles:
    """What was written. `cut_short`: not every request had ended."""

    output: "_File"
    error: "_File"
    completed: int = 0
    failed: int = 0
    usage: Usage = field(default_factory=Usage)
    cut_short: bool = False


class BatchWriter:
    """Writes the files of batches of one pipeline under its output root."""

    def __init__(
        self, settings: PipelineSettings, storage: Storage, database: RequestsDatabase, results: Results
    ) -> None:
        self._settings = settings
        self._storage = storage
        self._database = database
        self._results = results
        self._files = FileStore(database)

    def write(self, batch: Batch, code: str | None) -> BatchFiles:
        """Write both. Requests that have not ended are told with `code`; without one, raises NotEnded."""
        with ExitStack() as opened:
            output, error = (
                opened.enter_context(_File(self._storage, self._files, batch, name))
                for name in ("output", "error")
            )
            files = BatchFiles(output, error)
            for line in self._lines(batch):
                _write_line(batch, line, code, files)
        return files

    def _lines(self, batch: Batch) -> Iterator["_Line"]:
        for page in TakenLines(self._database, batch).pages():
            outcomes = self._results.in_order([line.request for line in page if line.request is not None])
            for line in page:
                if line.request is not None:
                    _, outcome = next(outcomes)
                    yield _Line(line.number, line.custom_id, line.is_base64, line.request.id, outcome)
                else:
                    # A request without its row was removed: its time was up before its batch's.
                    error = (line.code or "not_kept", line.message or "the request is not kept any longer")
                    yield _Line(line.number, line.custom_id, error=error)
        file = self._files.find(batch.input_file)
        if file is not None and not is_taken(batch, file):
            try:
                yield from self._lines_not_taken(batch, file)
            except FileNotFoundError:
                raise StorageError(
                    f"the file {file.id} of batch {batch.id} is gone; put it back at {file.path}"
                ) from None

    def _lines_not_taken(self, batch: Batch, file: StoredFile) -> Iterator["_Line"]:
        reader = LineReader(self._settings, batch.endpoint)
        chunks = open_storage(file.root).stream(file.path, batch.place)
        for raw in read_lines(chunks, batch.line, batch.place):
            line = reader.read(raw)
            if isinstance(line, FileError):
                yield _Line(raw.number, None, error=(line.code, line.message))
            else:
                error = None if line.code is None else (line.code, line.message or "")
                yield _Line(raw.number, line.custom_id, error=error)


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the input, and what became of it: an error of its own (code, message), or its request's outcome."""

    number: int
    custom_id: str | None
    is_base64: bool = False
    job_id: str | None = None
    outcome: Outcome | None = None
    error: tuple[str, str] | None = None


def _write_line(batch: Batch, line: _Line, code: str | None, files: BatchFiles) -> None:
    outcome = line.outcome
    if outcome is not None and outcome.result is not None:
        assert line.job_id is not None
        files.completed += 1
        files.usage += usage_of(outcome.result)
        files.output.write(
            answered(batch, line.custom_id, line.job_id, outcome.result, is_base64=line.is_base64)
        )
        return
    error = line.error or _error_of(outcome, code, files)
    files.failed += 1
    files.error.write(not_answered(line.custom_id, line.job_id or f"{batch.id}_{line.number}", *error))


def _error_of(outcome: Outcome | None, code: str | None, files: BatchFiles) -> tuple[str, str]:
    if outcome is not None and outcome.status == FAILED:
        told = outcome.error or {"code": "job_failed", "message": "its job failed"}
        if code is None or told["message"] != withdrawn(code):
            return told["code"], told["message"]
    if code is not None:
        files.cut_short = True
        return code, WORDS[code]
    if outcome is None or outcome.status in (QUEUED, IN_PROGRESS, COMPLETED):
        raise NotEnded
    return outcome.status, f"the request is {outcome.status}"


class _File:
    """One of a batch's files, made with its first line. Its id follows from the batch's."""

    def __init__(self, storage: Storage, files: FileStore, batch: Batch, name: str) -> None:
        self.id = f"file-{hashlib.sha256(f'{batch.id} {name}'.encode()).hexdigest()[:32]}"
        self.written: Written | None = None
        self._storage = storage
        self._files = files
        self._new = NewFile(self.id, batch.tenant, OUTPUT, f"{batch.id}_{name}.jsonl", storage.uri)
        self._output: Output | None = None
        self._digest = hashlib.sha256()
        self._bytes = self._lines = 0

    def __enter__(self) -> "_File":
        return self

    def write(self, line: bytes) -> None:
        if self._output is None:
            self._files.announce(self._new)
            self._output = self._storage.open_output(self._new.path)
        self._output.write(line)
        self._digest.update(line)
        self._bytes += len(line)
        self._lines += 1

    def __exit__(self, kind: object, *_: object) -> None:
        if self._output is None:
            return
        if kind is not None:
            self._output.abort()
            return
        self._output.close()
        self.written = Written(self._bytes, self._lines, self._digest.hexdigest())
