"""What became of a request: derived from its shard's state, its result read from the shard's committed files.

Nothing is copied: no second writer could disagree with the shard. A file that a marker names never changes, so what
is learnt of it once, its footer, stays true.
"""

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from batch_assets import paths
from batch_assets.embeddings.marker import ShardMarker, read_marker
from batch_assets.embeddings.parquet_files import open_parquet
from batch_assets.embeddings.schema import (
    EMBEDDING,
    GENERATE,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    RESPONSE,
    TOKEN_COUNT,
)
from batch_assets.errors import AccountingError
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.store import Request
from batch_assets.requests.windows import shard_of, utc
from batch_assets.storage import Storage, open_storage

QUEUED, IN_PROGRESS, COMPLETED, FAILED, CANCELLED = (
    "queued",
    "in_progress",
    "completed",
    "failed",
    "cancelled",
)
STATUSES = (QUEUED, IN_PROGRESS, COMPLETED, FAILED, CANCELLED, "expired")
FOOTERS_KEPT = 512


@dataclass(frozen=True)
class Outcome:
    """The status of a request, and what there is to say of it."""

    status: str
    processed_time: str | None = None
    attempts: int = 0
    result: dict[str, Any] | None = None
    error: dict[str, str] | None = None


class Results:
    """Looks up requests of every pipeline; threads may share it."""

    def __init__(self, database: RequestsDatabase, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger

    def look_up(self, request: Request) -> Outcome:
        """What became of a request. Raises AccountingError where committed files are damaged."""
        if request.cancelled_at is not None:
            return Outcome(CANCELLED, utc(request.cancelled_at))
        if request.window is None or request.line is None:
            return Outcome(QUEUED)
        shard = shard_of(self._database, request.pipeline, request.window, request.line)
        row = None if shard is None else self._ledger.shard(request.pipeline, shard)
        pipeline = self._ledger.pipeline(request.pipeline)
        if row is None or pipeline is None:
            return Outcome(IN_PROGRESS)
        if row.state is State.COLLECTED:
            storage = open_storage(pipeline.root)
            found = read_marker(storage, row.key)
            if found is not None:
                return _committed(storage, found[0], request, row.attempt)
        if row.state is State.EXHAUSTED:
            told = {"code": "job_failed", "message": row.error or "its job failed, and attempts are spent"}
            return Outcome(FAILED, utc(row.updated_at), row.attempt, error=told)
        return Outcome(IN_PROGRESS, attempts=row.attempt)

    def statuses(self, requests: Sequence[Request]) -> dict[str, str]:
        """The status of each of them, by id, without their results."""
        found: dict[str, str] = {}
        failed: dict[str, Mapping[str, str] | str] = {}
        for one in requests:
            if one.cancelled_at is not None or one.window is None or one.line is None:
                found[one.id] = CANCELLED if one.cancelled_at is not None else QUEUED
                continue
            shard = shard_of(self._database, one.pipeline, one.window, one.line)
            if shard is None:
                found[one.id] = IN_PROGRESS
                continue
            known = f"{one.pipeline}:{shard}"
            if known not in failed:
                failed[known] = self._of_shard(one.pipeline, shard)
            told = failed[known]
            found[one.id] = told if isinstance(told, str) else told.get(one.id, COMPLETED)
        return found

    def _of_shard(self, pipeline: str, shard: str) -> Mapping[str, str] | str:
        """The status that all of a shard's requests have, or, once it is committed, that of those that failed."""
        row, at = self._ledger.shard(pipeline, shard), self._ledger.pipeline(pipeline)
        if row is not None and row.state is State.EXHAUSTED:
            return FAILED
        if row is None or at is None or row.state is not State.COLLECTED:
            return IN_PROGRESS
        storage = open_storage(at.root)
        found = read_marker(storage, shard)
        if found is None:
            return IN_PROGRESS
        failures = found[0].failures
        if not failures.rows:
            return {}
        with open_parquet(storage, failures.path, _footer(storage, failures.path)) as file:
            return dict.fromkeys(file.read(columns=["record_id"]).column(0).to_pylist(), FAILED)

    def in_order(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Outcome]]:
        """What became of each of a window's requests, in their order; a row group is in memory at a time."""
        for shard, some in itertools.groupby(requests, self._shard):
            row = None if shard is None else self._ledger.shard(requests[0].pipeline, shard)
            at = self._ledger.pipeline(requests[0].pipeline)
            marker = None
            if row is not None and at is not None and row.state is State.COLLECTED:
                marker = read_marker(open_storage(at.root), row.key)
            if row is None or at is None or marker is None:
                yield from ((one, self.look_up(one)) for one in some)
            else:
                yield from _all_committed(open_storage(at.root), marker[0], list(some), row.attempt)

    def _shard(self, request: Request) -> str | None:
        if request.window is None or request.line is None:
            return None
        return shard_of(self._database, request.pipeline, request.window, request.line)


def _all_committed(
    storage: Storage, marker: ShardMarker, requests: Sequence[Request], attempts: int
) -> Iterator[tuple[Request, Outcome]]:
    """The outcomes of a window's requests in one shard; its rows are in the same order."""
    assert requests[0].window is not None
    window = paths.window_file(requests[0].window)
    wanted = {one.id: one for one in requests}
    failed: dict[str, Outcome] = {}
    path = marker.failures.path
    if marker.failures.rows:
        with open_parquet(storage, path, _footer(storage, path)) as file:
            for row in file.read(columns=_OF_FAILURES).to_pylist():
                if row["record_id"] in wanted:
                    failed[row["record_id"]] = _failed(marker, row)
    left = iter(requests)
    path = marker.embeddings.path
    with open_parquet(storage, path, _footer(storage, path)) as file:
        for group in _groups(file.metadata, window, None):
            for row in file.read_row_group(group, columns=["record_id", *_of_result(marker)]).to_pylist():
                name = row.pop("record_id")
                if name not in wanted:
                    continue
                for one in left:
                    if one.id == name:
                        yield one, Outcome(COMPLETED, marker.created, max(attempts, 1), row)
                        break
                    yield one, failed.get(one.id) or _missing(marker, one)
    for one in left:
        yield one, failed.get(one.id) or _missing(marker, one)


def _of_result(marker: ShardMarker) -> list[str]:
    """The columns that are a request's result."""
    return [RESPONSE, INPUT_TOKENS, OUTPUT_TOKENS] if marker.task == GENERATE else [EMBEDDING, TOKEN_COUNT]


def _failed(marker: ShardMarker, row: Mapping[str, Any]) -> Outcome:
    told = {"code": row["error_code"], "message": row["error_message"]}
    return Outcome(FAILED, marker.created, max(row["attempts"], 1), error=told)


def _missing(marker: ShardMarker, request: Request) -> Outcome:
    raise AccountingError(
        f"request {request.id}: shard {marker.shard} is committed, and neither of its files has it; "
        f"`batch-assets verify {marker.pipeline}` tells what is wrong"
    )


def _committed(storage: Storage, marker: ShardMarker, request: Request, attempts: int) -> Outcome:
    assert request.window is not None
    window = paths.window_file(request.window)
    path = marker.embeddings.path
    with open_parquet(storage, path, _footer(storage, path)) as file:
        for group in _groups(file.metadata, window, request.line):
            names = file.read_row_group(group, columns=["record_id"]).column(0)
            place = names.index(request.id).as_py()
            if place >= 0:
                rows = file.read_row_group(group, columns=_of_result(marker)).slice(place, 1)
                return Outcome(COMPLETED, marker.created, max(attempts, 1), rows.to_pylist()[0])
    path = marker.failures.path
    with open_parquet(storage, path, _footer(storage, path)) as file:
        for group in _groups(file.metadata, window, request.line):
            rows = file.read_row_group(group, columns=_OF_FAILURES)
            place = rows.column(0).index(request.id).as_py()
            if place >= 0:
                return _failed(marker, rows.slice(place, 1).to_pylist()[0])
    return _missing(marker, request)


_OF_FAILURES = ["record_id", "error_code", "error_message", "attempts"]


def _groups(footer: pq.FileMetaData, window: str, line: int | None) -> list[int]:
    """The row groups that may have a line of a window (any line where it is None), by their statistics."""
    names = {footer.schema.column(place).path: place for place in range(len(footer.schema))}
    by_file, by_row = names["source_file"], names["source_row"]
    found: list[int] = []
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        files, rows = group.column(by_file).statistics, group.column(by_row).statistics
        if files is not None and files.has_min_max and not files.min <= window <= files.max:
            continue
        # A group with several windows has lines of all of them.
        if line is not None and rows is not None and rows.has_min_max and not rows.min <= line <= rows.max:
            continue
        found.append(number)
    return found


@functools.lru_cache(maxsize=FOOTERS_KEPT)
def _footer_of(root: str, path: str) -> pq.FileMetaData:
    with open_parquet(open_storage(root), path) as file:
        return file.metadata


def _footer(storage: Storage, path: str) -> pq.FileMetaData:
    return _footer_of(storage.uri, path)
