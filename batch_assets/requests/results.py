"""What became of a request: derived from its shard's state, its result read from the shard's committed files.

Nothing is copied: no second writer could disagree with the shard. A file that a marker names never changes, so what
is learnt of it once, its footer, stays true.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
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
from batch_assets.requests.planned import Segment, Shards, segments_of
from batch_assets.requests.store import Request
from batch_assets.requests.windows import utc
from batch_assets.storage import Storage, open_storage

QUEUED, IN_PROGRESS, COMPLETED, FAILED, CANCELLED, EXPIRED = STATUSES = (
    "queued",
    "in_progress",
    "completed",
    "failed",
    "cancelled",
    "expired",
)
FOOTERS_KEPT, FAILURES_KEPT = 512, 8


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
        [(_, outcome)] = self.in_order([request])
        return outcome

    def ended_segments(self, pipeline: str, windows: Sequence[str]) -> list[Segment]:
        """The rows of these windows whose requests are completed or failed."""
        segments = segments_of(self._database, pipeline, windows)
        keys = sorted({segment.shard for segment in segments})
        rows = (
            self._ledger.shards(pipeline, keys=keys, states=[State.COLLECTED, State.EXHAUSTED])
            if keys
            else []
        )
        ended = {row.key for row in rows}
        return [segment for segment in segments if segment.shard in ended]

    def without_result(self, request: Request) -> Outcome:
        """What became of a request, its result unread: with the reason where it failed."""
        status = self.statuses([request])[request.id]
        return self.look_up(request) if status == FAILED else Outcome(status)

    def statuses(self, requests: Sequence[Request]) -> dict[str, str]:
        """The status of each of them, by id, without their results."""
        shards = self._shards(requests)
        found: dict[str, str] = {}
        known: dict[tuple[str, str], _ShardState] = {}
        for one in requests:
            place = shards(one)
            if place is None:
                found[one.id] = _unplanned(one).status
                continue
            if place not in known:
                known[place] = self._state(*place)
            found[one.id] = known[place].status(one.id)
        return found

    def in_order(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Outcome]]:
        """What became of each of them, in their order; of a window a row group is in memory at a time."""
        place_of = self._shards(requests)
        # The windows of a shard stand in an order of their own.
        for (place, _), some in itertools.groupby(requests, lambda one: (place_of(one), one.window)):
            if place is None:
                yield from ((one, _unplanned(one)) for one in some)
                continue
            state = self._state(*place)
            if state.storage is None or state.marker is None:
                yield from ((one, state.unfinished) for one in some)
            else:
                yield from _committed(state.storage, state.marker, list(some), state)

    def _shards(self, requests: Sequence[Request]) -> Callable[[Request], tuple[str, str] | None]:
        """What gives the (pipeline, shard) of each of them; None before it is planned."""
        windows: dict[str, set[str]] = {}
        for one in requests:
            if one.window is not None and one.cancelled_at is None:
                windows.setdefault(one.pipeline, set()).add(one.window)
        found = {name: Shards(self._database, name, some) for name, some in windows.items()}

        def place(one: Request) -> tuple[str, str] | None:
            if one.window is None or one.line is None or one.pipeline not in found:
                return None
            shard = found[one.pipeline].of(one.window, one.line)
            return None if shard is None else (one.pipeline, shard)

        return place

    def _state(self, pipeline: str, shard: str) -> "_ShardState":
        """How a shard stands. While it is computed again, what was committed before stands, but for what had failed."""
        row, at = self._ledger.shard(pipeline, shard), self._ledger.pipeline(pipeline)
        if row is None or at is None:
            return _ShardState(Outcome(IN_PROGRESS))
        unfinished = Outcome(IN_PROGRESS, attempts=row.attempt)
        if row.state is State.EXHAUSTED:
            told = {
                "code": "job_failed",
                "message": row.error or "its job failed, and its attempts are spent",
            }
            unfinished = Outcome(FAILED, utc(row.updated_at), row.attempt, error=told)
        storage = open_storage(at.root)
        found = read_marker(storage, shard) if row.fingerprint is not None else None
        if found is None:
            return _ShardState(unfinished)
        failures = found[0].failures
        failed = _ids_in(storage.uri, failures.path) if failures.rows else frozenset[str]()
        return _ShardState(unfinished, storage, found[0], failed, row.state is State.COLLECTED)


@dataclass(frozen=True)
class _ShardState:
    """How a shard's requests stand: what each of them is that has no result, and which have one.

    Of a committed one all but those in `failed` do; unless that `is_final`, these are tried again.
    """

    unfinished: Outcome
    storage: Storage | None = None
    marker: ShardMarker | None = None
    failed: frozenset[str] = frozenset()
    is_final: bool = False

    def status(self, request_id: str) -> str:
        """Of one of the shard's requests."""
        if self.marker is not None and request_id not in self.failed:
            return COMPLETED
        return FAILED if self.is_final else self.unfinished.status


def _unplanned(request: Request) -> Outcome:
    if request.cancelled_at is not None:
        return Outcome(EXPIRED if request.expired else CANCELLED, utc(request.cancelled_at))
    return Outcome(QUEUED if request.window is None else IN_PROGRESS)


def _committed(
    storage: Storage, marker: ShardMarker, requests: Sequence[Request], state: _ShardState
) -> Iterator[tuple[Request, Outcome]]:
    """The outcomes of requests of one shard, which stand in the order of its rows."""
    wanted = [one for one in requests if one.id not in state.failed]
    results = _results(storage, marker, wanted)
    failures = _failures(storage, marker, requests, state) if len(wanted) < len(requests) else {}
    for one in requests:
        if one.id in failures:
            yield one, failures[one.id]
            continue
        found = next(results, None)
        if found is None or found[0] != one.id:
            raise AccountingError(
                f"request {one.id}: shard {marker.shard} is committed, and neither of its files has it where it "
                f"should be; `batch-assets verify {marker.pipeline}` tells what is wrong"
            )
        yield one, Outcome(COMPLETED, marker.created, max(state.unfinished.attempts, 1), found[1])


def _results(
    storage: Storage, marker: ShardMarker, requests: Sequence[Request]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(id, result) of those of the requests that the embeddings file has, a row group at a time."""
    if not requests:
        return
    columns = [RESPONSE, INPUT_TOKENS, OUTPUT_TOKENS] if marker.task == GENERATE else [EMBEDDING, TOKEN_COUNT]
    ids = pa.array([one.id for one in requests], pa.string())
    path = marker.embeddings.path
    with open_parquet(storage, path, _footer(storage, path)) as file:
        for group in _groups(file.metadata, requests):
            # Vectors are read only of a group that has any of them.
            names = file.read_row_group(group, columns=["record_id"]).column(0)
            places = pc.call_function("is_in", [names], pc.SetLookupOptions(ids))
            rows = [place for place, is_wanted in enumerate(places.to_pylist()) if is_wanted]
            if rows:
                found = file.read_row_group(group, columns=columns).take(rows)
                yield from zip(names.take(rows).to_pylist(), found.to_pylist(), strict=True)


def _failures(
    storage: Storage, marker: ShardMarker, requests: Sequence[Request], state: _ShardState
) -> dict[str, Outcome]:
    """The outcomes of the requests that are in the failures file, by id."""
    wanted = {one.id for one in requests}
    path = marker.failures.path
    found: dict[str, Outcome] = {}
    with open_parquet(storage, path, _footer(storage, path)) as file:
        for group in _groups(file.metadata, requests):
            columns = ["record_id", "error_code", "error_message", "attempts"]
            for row in file.read_row_group(group, columns=columns).to_pylist():
                if row["record_id"] in wanted:
                    told = {"code": row["error_code"], "message": row["error_message"]}
                    final = Outcome(FAILED, marker.created, max(row["attempts"], 1), error=told)
                    found[row["record_id"]] = final if state.is_final else state.unfinished
    return found


def _groups(footer: pq.FileMetaData, requests: Sequence[Request]) -> list[int]:
    """The row groups that may have any of these requests, by their statistics."""
    wanted = [
        (paths.window_file(one.window), one.line) for one in requests if one.window and one.line is not None
    ]
    first, last = min(wanted)[0], max(wanted)[0]
    lines = [line for _, line in wanted]
    names = {footer.schema.column(place).path: place for place in range(len(footer.schema))}
    by_file, by_row = names["source_file"], names["source_row"]
    found: list[int] = []
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        files, rows = group.column(by_file).statistics, group.column(by_row).statistics
        if files is not None and files.has_min_max and not (files.min <= last and first <= files.max):
            continue
        # A group with several windows has lines of all of them.
        if rows is not None and rows.has_min_max and not (rows.min <= max(lines) and min(lines) <= rows.max):
            continue
        found.append(number)
    return found


@functools.lru_cache(maxsize=FAILURES_KEPT)
def _ids_in(root: str, path: str) -> frozenset[str]:
    storage = open_storage(root)
    with open_parquet(storage, path, _footer(storage, path)) as file:
        return frozenset(file.read(columns=["record_id"]).column(0).to_pylist())


@functools.lru_cache(maxsize=FOOTERS_KEPT)
def _footer_of(root: str, path: str) -> pq.FileMetaData:
    with open_parquet(open_storage(root), path) as file:
        return file.metadata


def _footer(storage: Storage, path: str) -> pq.FileMetaData:
    return _footer_of(storage.uri, path)
