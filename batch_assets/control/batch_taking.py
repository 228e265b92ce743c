"""From a batch's input file to requests: the file is judged as a whole, then taken part by part.

Each step can be repeated: judging writes nothing but its verdict, and a part is taken together with how far that is.
What becomes of a batch whose requests have ended is `batch_ending.py`'s.
"""

import orjson

from batch_assets.control.pipeline import Pipeline, take_root
from batch_assets.crash_points import crash_point
from batch_assets.errors import StorageError
from batch_assets.plain_text import plain_text
from batch_assets.requests.batches.files import FileStore, StoredFile
from batch_assets.requests.batches.lines import (
    MOST_BYTES,
    MOST_ERRORS,
    MOST_LINES,
    MOST_LINES_WITH_BLANK_ONES,
    FileError,
    Line,
    LineReader,
    UniqueIds,
    read_lines,
)
from batch_assets.requests.batches.store import FAILED, IN_PROGRESS, VALIDATING, Batch, BatchStore
from batch_assets.requests.batches.taking import Part, take_sealed, take_waiting
from batch_assets.requests.database import RequestsDatabase
from batch_assets.storage import open_storage

BATCHES_AT_ONCE = 50
PART_LINES, PART_BYTES = 10_000, 16 * 2**20
"""What is taken in one transaction."""


def is_taken(batch: Batch, file: StoredFile) -> bool:
    """Whether all of its file is."""
    return batch.place >= file.bytes


def batches_to_take(pipeline: str, database: RequestsDatabase) -> list[Batch]:
    """Those that are to be judged, or of which a part is to be taken, while there is time; the oldest ones."""
    return BatchStore(database).to_take(pipeline, BATCHES_AT_ONCE)


def take_batches(pipeline: Pipeline, database: RequestsDatabase) -> bool:
    """Judge each new batch, and take a part of each one that is judged; whether there was any.

    Raises StorageError where a file cannot be read now, once the others are taken.
    """
    found = batches_to_take(pipeline.name, database)
    unread: StorageError | None = None
    for batch in found:
        try:
            _take(pipeline, database, batch)
        except StorageError as error:
            unread = unread or error
    if unread is not None:
        raise unread
    return bool(found)


def _take(pipeline: Pipeline, database: RequestsDatabase, batch: Batch) -> None:
    file = FileStore(database).find(batch.input_file)
    try:
        if file is None:
            raise FileNotFoundError
        if batch.status == VALIDATING:
            _judge(pipeline, database, batch, file)
        else:
            _take_part(pipeline, database, batch, file)
    except FileNotFoundError:
        told = f"the file {batch.input_file} of batch {batch.id} is gone"
        if batch.status == VALIDATING:
            _fail(database, batch, [FileError("file_not_found", told, param="input_file_id")])
        else:
            # Some of its lines are computed: whoever puts the file back in time has the others computed, too.
            raise StorageError(f"{told}; put it back at {file.path if file else '?'}") from None


def _judge(pipeline: Pipeline, database: RequestsDatabase, batch: Batch, file: StoredFile) -> None:
    reader, ids = LineReader(pipeline.settings, batch.endpoint), UniqueIds()
    errors: list[FileError] = []
    total = 0
    if file.bytes > MOST_BYTES:
        told = f"the file has {file.bytes:,} bytes, and may have {MOST_BYTES:,}; make several batches of it"
        errors.append(FileError("file_too_large", told))
    else:
        for raw in read_lines(open_storage(file.root).stream(file.path)):
            total += 1
            if total > MOST_LINES or raw.number > MOST_LINES_WITH_BLANK_ONES:
                told = f"the file has more than {MOST_LINES:,} requests; make several batches of it"
                errors.append(FileError("too_many_tasks", told))
                break
            line = reader.read(raw)
            if isinstance(line, FileError):
                errors.append(line)
            elif line.custom_id is not None and not ids.is_new(line.custom_id):
                told = f"custom_id {plain_text(line.custom_id[:100])!r} is another line's, too"
                errors.append(FileError("duplicate_custom_id", told, raw.number, "custom_id"))
            if len(errors) >= MOST_ERRORS:
                break
        if not total:
            errors.append(FileError("empty_file", "the file has no requests"))
    if errors:
        _fail(database, batch, errors)
    else:
        model = pipeline.settings.model_name
        BatchStore(database).move(batch, IN_PROGRESS, total=total, model=model)
    crash_point("batch-judged")


def _fail(database: RequestsDatabase, batch: Batch, errors: list[FileError]) -> None:
    told = [
        {"code": one.code, "line": one.line, "message": one.message, "param": one.param} for one in errors
    ]
    BatchStore(database).move(batch, FAILED, errors=orjson.dumps(told).decode())


def _take_part(pipeline: Pipeline, database: RequestsDatabase, batch: Batch, file: StoredFile) -> None:
    rules = pipeline.settings.source.requests
    assert rules is not None, pipeline.name
    part = _next_part(LineReader(pipeline.settings, batch.endpoint), batch, file)
    # Bounded by what one window may hold: a smaller batch waits with others' requests.
    if batch.total >= rules.seal_records:
        take_root(pipeline)
        take_sealed(database, pipeline.storage, batch, part)
    else:
        take_waiting(database, batch, part)
    crash_point("batch-part-taken")


def _next_part(reader: LineReader, batch: Batch, file: StoredFile) -> Part:
    chunks = open_storage(file.root).stream(file.path, batch.place)
    lines: list[Line] = []
    size = 0
    number, place = batch.line, batch.place
    for raw in read_lines(chunks, number, place):
        if len(lines) == PART_LINES or size > PART_BYTES:
            return Part(lines, number, place)
        line = reader.read(raw)
        assert isinstance(line, Line), f"batch {batch.id}, line {raw.number}: its file was judged otherwise"
        lines.append(line)
        size += len(raw.data or b"")
        number, place = raw.number, raw.end
    return Part(lines, number, file.bytes)
