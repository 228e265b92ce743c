"""A batch's lines become requests: part by part, each in one transaction with how far the file is taken.

A small batch's lines wait with everybody's for the next window; a larger one has windows of its own, which are written
first. Ids and names follow from the batch and the line, so that a part that is taken again after a crash is the same.
"""

import datetime
import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from batch_assets import paths
from batch_assets.crash_points import crash_point
from batch_assets.errors import StorageError
from batch_assets.requests.batches.lines import Line
from batch_assets.requests.batches.store import Batch
from batch_assets.requests.bodies import window_line
from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.store import ACCEPTED, CANCELLED, EXPIRED, add_to_total
from batch_assets.requests.tenants import add_to_day, set_shares, utc_day
from batch_assets.requests.windows import utc
from batch_assets.storage import Storage


def job_id_of(batch: Batch, line: int) -> str:
    """The id of the request that a line becomes: a UUID of version 7, known to those who know the batch's."""
    value = int.from_bytes(hashlib.sha256(f"{batch.id} {line}".encode()).digest()[:10], "big")
    value |= int(batch.created * 1000) << 80
    return str(uuid.UUID(int=value & ~(0xF000 << 64 | 0xC000 << 48) | 0x7000 << 64 | 0x8000 << 48))


@dataclass(frozen=True, slots=True)
class Part:
    """Lines of a batch's file, up to the line `line`, which ends at the byte `place`."""

    lines: Sequence[Line]
    line: int
    place: int


def take_waiting(database: RequestsDatabase, batch: Batch, part: Part) -> bool:
    """Have these lines wait for the next window; False where the batch was moved on meanwhile."""
    with database.write() as connection:
        return _take(connection, database, batch, part, None)


def take_sealed(database: RequestsDatabase, storage: Storage, batch: Batch, part: Part) -> bool:
    """Seal these lines in a window of their own; False where the batch was moved on meanwhile."""
    opened = datetime.datetime.fromtimestamp(batch.created, datetime.UTC)
    # By their names the windows of a batch stand together, and in its order.
    digits = hashlib.sha256(batch.id.encode()).hexdigest()[:7]
    name = paths.window_name(opened, f"{digits}{batch.line:05x}")
    arrived = utc(batch.created)
    data = b"".join(
        window_line(one.record, job_id_of(batch, one.number), batch.tenant, arrived)
        for one in part.lines
        if one.record is not None
    )
    path = f"{paths.WINDOWS}/{paths.window_file(name)}"
    if data and not storage.create(path, data) and storage.read(path) != data:
        raise StorageError(
            f"{storage.uri}/{path}: is there, and is not what batch {batch.id} has in it; move it away, and it is "
            "written anew"
        )
    crash_point("batch-window-written")
    with database.write() as connection:
        return _take(connection, database, batch, part, (name, len(data)) if data else None)


def _take(
    connection: sa.Connection,
    database: RequestsDatabase,
    batch: Batch,
    part: Part,
    window: tuple[str, int] | None,
) -> bool:
    advanced = {"number": batch.number, "before": batch.place, "line": part.line, "place": part.place}
    if not connection.execute(_ADVANCE, advanced).rowcount:
        return False
    name = None if window is None else window[0]
    taken = [one for one in part.lines if one.record is not None]
    rows: list[dict[str, Any]] = [
        {
            "id": job_id_of(batch, one.number),
            "pipeline": batch.pipeline,
            "batch": batch.number,
            "tenant": batch.tenant,
            "arrived": batch.created,
            "size": len(one.record or b""),
            "body": one.record if window is None else None,
            "window": name,
            "line": None if window is None else place_in_window,
        }
        for place_in_window, one in enumerate(taken)
    ]
    if rows:
        connection.execute(_ACCEPT, rows)
    if part.lines:
        connection.execute(
            _ADD_LINES,
            [
                {
                    "batch": batch.number,
                    "line": one.number,
                    "custom_id": one.custom_id,
                    "request": None if one.record is None else job_id_of(batch, one.number),
                    "is_base64": int(one.is_base64),
                    "code": one.code,
                    "message": one.message,
                }
                for one in part.lines
            ],
        )
    now = database.now(connection)
    if window is not None:
        values = {"pipeline": batch.pipeline, "name": window[0], "bytes": window[1]}
        connection.execute(_SEALED, values | {"opened": batch.created, "records": len(taken), "now": now})
        set_shares(connection, batch.pipeline, window[0])
    add_to_total(connection, batch.pipeline, ACCEPTED, len(taken))
    add_to_day(connection, batch.pipeline, utc_day(now), {batch.tenant: len(taken)})
    return True


def end_waiting(database: RequestsDatabase, batch: Batch, *, expired: bool) -> int:
    """End those of a batch's requests that are in no window yet; how many."""
    with database.write() as connection:
        values = {"batch": batch.number, "now": database.now(connection), "expired": int(expired)}
        ended = connection.execute(_END_WAITING, values).rowcount
        add_to_total(connection, batch.pipeline, EXPIRED if expired else CANCELLED, ended)
    return ended


_ADVANCE = sa.text(
    "UPDATE requests_batches SET line = :line, place = :place "
    "WHERE number = :number AND place = :before AND status = 'in_progress'"
)
_ACCEPT = sa.text(
    "INSERT INTO requests_accepted (id, pipeline, batch, tenant, arrived, size, body, window_name, line) "
    "VALUES (:id, :pipeline, :batch, :tenant, :arrived, :size, :body, :window, :line)"
)
_ADD_LINES = sa.text(
    "INSERT INTO requests_batch_lines (batch, line, custom_id, request, is_base64, code, message) "
    "VALUES (:batch, :line, :custom_id, :request, :is_base64, :code, :message)"
)
_SEALED = sa.text(
    "INSERT INTO requests_windows (pipeline, name, opened, records, bytes, sealed_at) "
    "VALUES (:pipeline, :name, :opened, :records, :bytes, :now)"
)
_END_WAITING = sa.text(
    "UPDATE requests_accepted SET cancelled_at = :now, expired = :expired, body = NULL "
    "WHERE window_name IS NULL AND cancelled_at IS NULL "
    "AND id IN (SELECT request FROM requests_batch_lines WHERE batch = :batch AND request IS NOT NULL)"
)
