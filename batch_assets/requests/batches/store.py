"""Batches in the database: made once, moved from status to status by compare-and-set, listed.

How a batch's lines become requests is `taking.py`'s; when it moves, that of `batch_taking.py` and `batch_ending.py` in
`control/`.
"""

import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson
import sqlalchemy as sa

from batch_assets.requests.database import RequestsDatabase

VALIDATING, FAILED, IN_PROGRESS, FINALIZING, COMPLETED, EXPIRED, CANCELLING, CANCELLED = (
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
)
"""OpenAI's words for how a batch stands."""
ENDED = (COMPLETED, FAILED, EXPIRED, CANCELLED)
REPEATED_WITHIN_SECONDS = 24 * 3600.0
"""So long a POST that a client repeats is the batch that the first one made."""
BATCH_COLUMNS = (
    "number, id, tenant, pipeline, endpoint, input_file, completion_window, metadata, status, created, expires, "
    "output_seconds, in_progress_at, finalizing_at, cancelling_at, ended_at, model, errors, line, place, total, "
    "completed, failed, input_tokens, output_tokens, output_file, error_file"
)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch; times are unix seconds. `line` and `place` (a byte) say how far its file is taken."""

    number: int
    id: str
    tenant: str
    pipeline: str
    endpoint: str
    input_file: str
    completion_window: str
    metadata: str
    status: str
    created: float
    expires: float
    output_seconds: float
    in_progress_at: float | None
    finalizing_at: float | None
    cancelling_at: float | None
    ended_at: float | None
    model: str | None
    errors: str | None
    line: int
    place: int
    total: int
    completed: int
    failed: int
    input_tokens: int
    output_tokens: int
    output_file: str | None
    error_file: str | None


@dataclass(frozen=True, slots=True)
class NewBatch:
    """What a client asks for. `metadata` is as it was sent; the results are kept for `output_seconds`.

    `webhook` is the URL that is to hear of its end.
    """

    tenant: str
    pipeline: str
    endpoint: str
    input_file: str
    completion_window: str
    window_seconds: float
    output_seconds: float
    metadata: Mapping[str, str] | None
    webhook: str | None = None


class BatchStore:
    """The batches of all pipelines in one database; threads may share it."""

    def __init__(self, database: RequestsDatabase) -> None:
        self._database = database

    def create(self, new: NewBatch, *, is_repeated: bool) -> Batch:
        """Make a batch durable. Where a client repeats its POST, the one that it has made already is told."""
        self._database.prepare()
        written = orjson.dumps(new.metadata, option=orjson.OPT_SORT_KEYS).decode()
        batch_id = f"batch_{secrets.token_hex(16)}"
        with self._database.write() as connection:
            if not self._database.is_sqlite:
                # Two POSTs of one tenant, the second for want of an answer to the first: one after the other.
                lock = sa.text(
                    "SELECT pg_advisory_xact_lock(hashtext('requests_batches'), hashtext(:tenant))"
                )
                connection.execute(lock, {"tenant": new.tenant})
            now = self._database.now(connection)
            values = {
                "tenant": new.tenant, "endpoint": new.endpoint, "input_file": new.input_file, "metadata": written,
                "since": now - REPEATED_WITHIN_SECONDS,
            }  # fmt: skip
            if is_repeated and (known := connection.scalar(_KNOWN, values)) is not None:
                batch_id = known
            else:
                connection.execute(_INSERT, values | {
                    "id": batch_id, "pipeline": new.pipeline, "completion_window": new.completion_window,
                    "status": VALIDATING, "created": now, "expires": now + new.window_seconds,
                    "output_seconds": new.output_seconds,
                })  # fmt: skip
                if new.webhook is not None:
                    receiver = urlsplit(new.webhook).netloc
                    hooked = {"id": batch_id, "url": new.webhook, "receiver": receiver}
                    connection.execute(_INSERT_WEBHOOK, hooked)
        found = self.find(batch_id)
        assert found is not None, batch_id
        return found

    def find(self, batch_id: str) -> Batch | None:
        """The batch with this id; None where there is none."""
        self._database.prepare()
        query = sa.text(f"SELECT {BATCH_COLUMNS} FROM requests_batches WHERE id = :id")
        with self._database.read() as connection:
            row = connection.execute(query, {"id": batch_id}).one_or_none()
        return None if row is None else Batch(*row)

    def newest(self, tenant: str | None, before: int | None, most: int) -> list[Batch]:
        """Batches, newest first, of one tenant or of all: those made before the one with the number `before`."""
        self._database.prepare()
        where = "" if tenant is None else " AND tenant = :tenant"
        where += "" if before is None else " AND number < :before"
        query = sa.text(
            f"SELECT {BATCH_COLUMNS} FROM requests_batches WHERE 1 = 1{where} ORDER BY number DESC LIMIT :most"
        )
        values = {"tenant": tenant, "before": before, "most": most}
        with self._database.read() as connection:
            return [Batch(*row) for row in connection.execute(query, values)]

    def to_take(self, pipeline: str, most: int) -> list[Batch]:
        """Batches of a pipeline that are not judged, or not wholly taken, and have time left, oldest first."""
        self._database.prepare()
        with self._database.read() as connection:
            values = {"pipeline": pipeline, "most": most, "now": self._database.now(connection)}
            return [Batch(*row) for row in connection.execute(_TO_TAKE, values)]

    def unfinished(self, pipeline: str) -> list[Batch]:
        """Batches of a pipeline that have not ended, oldest first."""
        self._database.prepare()
        with self._database.read() as connection:
            return [Batch(*row) for row in connection.execute(_UNFINISHED, {"pipeline": pipeline})]

    def in_shard(self, pipeline: str, shard: str) -> dict[str, int]:
        """The ids of the batches that have requests in a shard, and how many each."""
        self._database.prepare()
        found: Counter[str] = Counter()
        with self._database.read() as connection:
            # One by one: asked for all at once, SQLite reads every request of the pipeline.
            for window, first, last in connection.execute(
                _SEGMENTS, {"pipeline": pipeline, "shard": shard}
            ).all():
                values = {"pipeline": pipeline, "window": window, "first": first, "last": last}
                for row in connection.execute(_IN_SEGMENT, values):
                    found[row.id] += row.requests
        return dict(found)

    def all_failed(self, pipeline: str, seconds: float, most: int) -> list[Batch]:
        """Batches that completed within the last so many seconds without a single result, newest first."""
        self._database.prepare()
        with self._database.read() as connection:
            values = {
                "pipeline": pipeline,
                "since": self._database.now(connection) - seconds,
                "most": most,
            }
            return [Batch(*row) for row in connection.execute(_ALL_FAILED, values)]

    def move(self, batch: Batch, status: str, **values: Any) -> bool:
        """Take a batch from the status that it has to another one; False where somebody else was first.

        `values` are columns that change with it.
        """
        moment = {
            IN_PROGRESS: "in_progress_at",
            FINALIZING: "finalizing_at",
            CANCELLING: "cancelling_at",
        }.get(status, "ended_at" if status in ENDED else None)
        with self._database.write() as connection:
            now = self._database.now(connection)
            return move(connection, batch, status, values | ({} if moment is None else {moment: now}))

    def note_progress(self, batch: Batch, completed: int, failed: int) -> None:
        """So many of its lines have ended so far."""
        update = sa.text(
            "UPDATE requests_batches SET completed = :completed, failed = :failed "
            "WHERE number = :number AND ended_at IS NULL AND finalizing_at IS NULL"
        )
        with self._database.write() as connection:
            connection.execute(update, {"number": batch.number, "completed": completed, "failed": failed})

    def remove_ended(self, pipeline: str, before: float) -> int:
        """Forget batches that ended before a time (unix seconds), and their lines; how many."""
        self._database.prepare()
        with self._database.write() as connection:
            numbers = list(connection.scalars(_ENDED, {"pipeline": pipeline, "before": before}))
            for table, name in (
                ("requests_batch_lines", "batch"),
                ("requests_batch_webhooks", "number"),
                ("requests_batches", "number"),
            ):
                if numbers:
                    delete = sa.text(f"DELETE FROM {table} WHERE {name} = :number")
                    connection.execute(delete, [{"number": number} for number in numbers])
        return len(numbers)


def move(connection: sa.Connection, batch: Batch, status: str, values: Mapping[str, Any]) -> bool:
    """The same within a transaction that does more."""
    changed = "".join(f", {name} = :{name}" for name in values)
    update = sa.text(
        f"UPDATE requests_batches SET status = :status{changed} WHERE number = :number AND status = :before"
    )
    given = {**values, "status": status, "number": batch.number, "before": batch.status}
    moved = bool(connection.execute(update, given).rowcount)
    if moved and status in ENDED:
        connection.execute(_WEBHOOK_DUE, {"number": batch.number})
    return moved


_KNOWN = sa.text(
    "SELECT id FROM requests_batches WHERE tenant = :tenant AND endpoint = :endpoint AND input_file = :input_file "
    "AND metadata = :metadata AND created > :since ORDER BY number DESC LIMIT 1"
)
_UNFINISHED = sa.text(
    f"SELECT {BATCH_COLUMNS} FROM requests_batches WHERE pipeline = :pipeline AND ended_at IS NULL ORDER BY number"
)
_TO_TAKE = sa.text(
    f"SELECT {BATCH_COLUMNS} FROM requests_batches WHERE pipeline = :pipeline AND ended_at IS NULL AND expires > :now "
    "AND (status = 'validating' OR status = 'in_progress' "
    "AND place < (SELECT bytes FROM requests_files WHERE id = input_file)) ORDER BY number LIMIT :most"
)
_INSERT = sa.text(
    "INSERT INTO requests_batches (id, tenant, pipeline, endpoint, input_file, completion_window, metadata, status, "
    "created, expires, output_seconds) VALUES (:id, :tenant, :pipeline, :endpoint, :input_file, :completion_window, "
    ":metadata, :status, :created, :expires, :output_seconds)"
)
_SEGMENTS = sa.text(
    "SELECT window_name, first_row, last_row FROM requests_segments WHERE pipeline = :pipeline AND shard = :shard"
)
_IN_SEGMENT = sa.text(
    "SELECT requests_batches.id, count(*) AS requests FROM requests_accepted "
    "JOIN requests_batches ON requests_batches.number = batch "
    "WHERE requests_accepted.pipeline = :pipeline AND window_name = :window AND requests_accepted.line >= :first "
    "AND requests_accepted.line < :last GROUP BY requests_batches.id, requests_batches.number "
    "ORDER BY requests_batches.number"
)
_ALL_FAILED = sa.text(
    f"SELECT {BATCH_COLUMNS} FROM requests_batches WHERE pipeline = :pipeline AND ended_at IS NOT NULL "
    "AND ended_at > :since AND status = 'completed' AND completed = 0 ORDER BY ended_at DESC LIMIT :most"
)
_INSERT_WEBHOOK = sa.text(
    "INSERT INTO requests_batch_webhooks (number, pipeline, url, receiver) "
    "SELECT number, pipeline, :url, :receiver FROM requests_batches WHERE id = :id"
)
_WEBHOOK_DUE = sa.text(
    "UPDATE requests_batch_webhooks SET due = (SELECT ended_at FROM requests_batches WHERE number = :number) "
    "WHERE number = :number AND due IS NULL"
)
_ENDED = sa.text(
    "SELECT number FROM requests_batches WHERE pipeline = :pipeline AND ended_at IS NOT NULL "
    "AND ended_at < :before ORDER BY ended_at LIMIT 20"
)
