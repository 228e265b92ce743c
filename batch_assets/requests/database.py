"""The database of requests and messages: SQLite or PostgreSQL, its tables and how they came to their shape.

It is apart from the ledger, so that traffic never stalls a shard's claim. Writers here take no lock beyond SQLite's
own and PostgreSQL's row locks. What is read and written belongs to whoever uses it (`dispatch/queues/local.py`).
"""

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from batch_assets.errors import BatchAssetsError, ConfigurationError
from batch_assets.home import requests_url
from batch_assets.ledger.engines import make_engine
from batch_assets.ledger.urls import parse_url, shown

_STEPS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE requests_messages (
            number {serial}, queue {text} NOT NULL, id {text}, token {text} NOT NULL, body {bytes} NOT NULL,
            deadline DOUBLE PRECISION NOT NULL, arrived DOUBLE PRECISION NOT NULL,
            held_until DOUBLE PRECISION, claim {text} NOT NULL DEFAULT '', attempts BIGINT NOT NULL DEFAULT 0)""",
        "CREATE UNIQUE INDEX requests_messages_by_token ON requests_messages (queue, token)",
        """CREATE INDEX requests_messages_waiting ON requests_messages (queue, deadline, number)
            WHERE held_until IS NULL""",
        """CREATE INDEX requests_messages_held ON requests_messages (queue, held_until)
            WHERE held_until IS NOT NULL""",
        "CREATE TABLE requests_results (number {serial}, queue {text} NOT NULL, body {bytes} NOT NULL)",
        "CREATE INDEX requests_results_by_queue ON requests_results (queue, number)",
        """CREATE TABLE requests_dead (
            number {serial}, queue {text} NOT NULL, body {bytes} NOT NULL, at DOUBLE PRECISION NOT NULL)""",
        """CREATE TABLE requests_finished (
            queue {text} NOT NULL, token {text} NOT NULL, at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (queue, token))""",
        "CREATE INDEX requests_finished_by_time ON requests_finished (at)",
        """CREATE TABLE requests_cancelled (
            queue {text} NOT NULL, id {text} NOT NULL, at DOUBLE PRECISION NOT NULL, PRIMARY KEY (queue, id))""",
    ),
    (
        """CREATE TABLE requests_endings (
            queue {text} NOT NULL, ending {text} NOT NULL, messages BIGINT NOT NULL, PRIMARY KEY (queue, ending))""",
    ),
    (
        """CREATE TABLE requests_accepted (
            number {serial}, id {text} NOT NULL, pipeline {text} NOT NULL, tenant {text} NOT NULL, key {text},
            digest {bytes}, arrived DOUBLE PRECISION NOT NULL, size BIGINT NOT NULL, body {bytes},
            cancelled_at DOUBLE PRECISION, window_name {text}, line BIGINT)""",
        "CREATE UNIQUE INDEX requests_accepted_by_id ON requests_accepted (id)",
        """CREATE UNIQUE INDEX requests_accepted_by_key ON requests_accepted (pipeline, tenant, key)
            WHERE key IS NOT NULL""",
        """CREATE INDEX requests_accepted_waiting ON requests_accepted (pipeline, tenant, number)
            WHERE window_name IS NULL AND cancelled_at IS NULL""",
        "CREATE INDEX requests_accepted_by_tenant ON requests_accepted (pipeline, tenant, number)",
        """CREATE INDEX requests_accepted_by_window ON requests_accepted (pipeline, window_name, line)
            WHERE window_name IS NOT NULL""",
        """CREATE TABLE requests_windows (
            pipeline {text} NOT NULL, name {text} NOT NULL, opened DOUBLE PRECISION NOT NULL,
            records BIGINT NOT NULL, bytes BIGINT, sealed_at DOUBLE PRECISION, generation BIGINT,
            PRIMARY KEY (pipeline, name))""",
        """CREATE INDEX requests_windows_unplanned ON requests_windows (pipeline, name)
            WHERE generation IS NULL""",
        "CREATE INDEX requests_windows_by_generation ON requests_windows (pipeline, generation)",
        """CREATE TABLE requests_segments (
            pipeline {text} NOT NULL, window_name {text} NOT NULL, first_row BIGINT NOT NULL,
            last_row BIGINT NOT NULL, shard {text} NOT NULL, PRIMARY KEY (pipeline, window_name, first_row))""",
        """CREATE TABLE requests_totals (
            pipeline {text} NOT NULL, what {text} NOT NULL, requests BIGINT NOT NULL,
            PRIMARY KEY (pipeline, what))""",
    ),
    (
        """CREATE TABLE requests_webhooks (
            number BIGINT PRIMARY KEY, pipeline {text} NOT NULL, url {text} NOT NULL, receiver {text} NOT NULL,
            window_name {text}, due DOUBLE PRECISION, tries BIGINT NOT NULL DEFAULT 0)""",
        """CREATE INDEX requests_webhooks_open ON requests_webhooks (pipeline, window_name)
            WHERE due IS NULL""",
        """CREATE INDEX requests_webhooks_due ON requests_webhooks (receiver, due)
            WHERE due IS NOT NULL""",
    ),
    (
        """CREATE TABLE requests_days (
            pipeline {text} NOT NULL, tenant {text} NOT NULL, day {text} NOT NULL, requests BIGINT NOT NULL,
            PRIMARY KEY (pipeline, tenant, day))""",
        """CREATE TABLE requests_shares (
            pipeline {text} NOT NULL, window_name {text} NOT NULL, tenant {text} NOT NULL, requests BIGINT NOT NULL,
            PRIMARY KEY (pipeline, window_name, tenant))""",
        """INSERT INTO requests_shares SELECT pipeline, window_name, tenant, count(*) FROM requests_accepted
            WHERE window_name IS NOT NULL GROUP BY pipeline, window_name, tenant""",
        "CREATE INDEX requests_segments_by_shard ON requests_segments (pipeline, shard)",
        """CREATE TABLE requests_removals (
            pipeline {text} NOT NULL, generation BIGINT NOT NULL, PRIMARY KEY (pipeline, generation))""",
        # With all that is asked of those that wait, and what tells them first: SQLite takes another one else.
        "DROP INDEX requests_accepted_waiting",
        """CREATE INDEX requests_accepted_waiting
            ON requests_accepted (pipeline, window_name, cancelled_at, tenant, number, arrived, size)
            WHERE window_name IS NULL AND cancelled_at IS NULL""",
        "CREATE INDEX requests_accepted_by_number ON requests_accepted (pipeline, number)",
        """CREATE INDEX requests_accepted_cancelled ON requests_accepted (pipeline, cancelled_at)
            WHERE cancelled_at IS NOT NULL""",
    ),
    (
        "ALTER TABLE requests_accepted ADD COLUMN expired BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE requests_accepted ADD COLUMN batch BIGINT",
        """CREATE TABLE requests_files (
            number {serial}, id {text} NOT NULL, tenant {text} NOT NULL, purpose {text} NOT NULL,
            filename {text} NOT NULL, bytes BIGINT NOT NULL, lines BIGINT NOT NULL, sha256 {text} NOT NULL,
            root {text} NOT NULL, created DOUBLE PRECISION NOT NULL, expires DOUBLE PRECISION NOT NULL,
            deleted_at DOUBLE PRECISION)""",
        "CREATE UNIQUE INDEX requests_files_by_id ON requests_files (id)",
        "CREATE INDEX requests_files_by_tenant ON requests_files (tenant, number) WHERE deleted_at IS NULL",
        "CREATE INDEX requests_files_by_root ON requests_files (root, expires)",
        """CREATE TABLE requests_batches (
            number {serial}, id {text} NOT NULL, tenant {text} NOT NULL, pipeline {text} NOT NULL,
            endpoint {text} NOT NULL, input_file {text} NOT NULL, completion_window {text} NOT NULL,
            metadata {text} NOT NULL, status {text} NOT NULL, created DOUBLE PRECISION NOT NULL,
            expires DOUBLE PRECISION NOT NULL, output_seconds DOUBLE PRECISION NOT NULL,
            in_progress_at DOUBLE PRECISION, finalizing_at DOUBLE PRECISION, cancelling_at DOUBLE PRECISION,
            ended_at DOUBLE PRECISION, model {text}, errors {text}, line BIGINT NOT NULL DEFAULT 0,
            place BIGINT NOT NULL DEFAULT 0, total BIGINT NOT NULL DEFAULT 0, completed BIGINT NOT NULL DEFAULT 0,
            failed BIGINT NOT NULL DEFAULT 0, input_tokens BIGINT NOT NULL DEFAULT 0,
            output_tokens BIGINT NOT NULL DEFAULT 0, output_file {text}, error_file {text})""",
        "CREATE UNIQUE INDEX requests_batches_by_id ON requests_batches (id)",
        "CREATE INDEX requests_batches_by_tenant ON requests_batches (tenant, number)",
        "CREATE INDEX requests_batches_by_input ON requests_batches (input_file)",
        "CREATE INDEX requests_batches_open ON requests_batches (pipeline, number) WHERE ended_at IS NULL",
        "CREATE INDEX requests_batches_ended ON requests_batches (pipeline, ended_at) WHERE ended_at IS NOT NULL",
        """CREATE TABLE requests_batch_lines (
            batch BIGINT NOT NULL, line BIGINT NOT NULL, custom_id {text}, request {text}, is_base64 BIGINT NOT NULL,
            code {text}, message {text}, PRIMARY KEY (batch, line))""",
        """CREATE TABLE requests_batch_webhooks (
            number BIGINT PRIMARY KEY, pipeline {text} NOT NULL, url {text} NOT NULL, receiver {text} NOT NULL,
            due DOUBLE PRECISION, tries BIGINT NOT NULL DEFAULT 0)""",
        """CREATE INDEX requests_batch_webhooks_due ON requests_batch_webhooks (receiver, due)
            WHERE due IS NOT NULL""",
    ),
)
"""One tuple of statements for each version of the tables; a released one is never changed."""


class DatabaseAway(BatchAssetsError):
    """The database cannot be used now."""


class RequestsDatabase:
    """One database by URL; threads may share it. Raises ConfigurationError for a URL that can never work."""

    def __init__(self, url: str) -> None:
        parsed = parse_url(url)
        self.shown = shown(parsed)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.skip_locked = "" if self.is_sqlite else " FOR UPDATE SKIP LOCKED"
        """What a query ends with that takes rows: those that another transaction has are left to it."""
        try:
            self._engine = make_engine(parsed, read_only=False)
        except OSError as error:
            raise ConfigurationError(
                f"database {self.shown}: cannot be opened: {error}; set DAGSTER_HOME to a folder that can be written"
            ) from None
        self._is_prepared = False
        self._writer = self._engine.execution_options(ledger_write=True)

    def prepare(self) -> None:
        """Bring the tables to this version's shape, once; safe when several processes do at once."""
        if self._is_prepared:
            return
        with self.write() as connection:
            if not self.is_sqlite:
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('requests_versions'))")
            connection.exec_driver_sql(
                "CREATE TABLE IF NOT EXISTS requests_versions (version BIGINT PRIMARY KEY)"
            )
            done = connection.scalar(sa.text("SELECT max(version) FROM requests_versions")) or 0
            if done > len(_STEPS):
                raise ConfigurationError(
                    f"database {self.shown}: written by a newer version of Batch Assets; upgrade this one"
                )
            for number, statements in enumerate(_STEPS[done:], done + 1):
                for statement in statements:
                    connection.exec_driver_sql(statement.format(**self._types()))
                connection.execute(
                    sa.text("INSERT INTO requests_versions VALUES (:version)"), {"version": number}
                )
        self._is_prepared = True

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that only reads. Raises DatabaseAway."""
        with self._transaction(self._engine) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that is committed at the end. Raises DatabaseAway."""
        with self._transaction(self._writer) as connection:
            yield connection

    @contextmanager
    def _transaction(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise DatabaseAway(f"database {self.shown}: {' '.join(str(error.orig).split())}") from error

    def now(self, connection: sa.Connection) -> float:
        """Unix seconds by the database's clock."""
        if self.is_sqlite:
            return time.time()
        return float(connection.scalar(sa.text("SELECT extract(epoch FROM clock_timestamp())::float8")) or 0)

    def dispose(self) -> None:
        """Close every connection that is not in use."""
        self._engine.dispose()

    def _types(self) -> dict[str, str]:
        if self.is_sqlite:
            return {"serial": "INTEGER PRIMARY KEY AUTOINCREMENT", "text": "TEXT", "bytes": "BLOB"}
        return {"serial": "BIGSERIAL PRIMARY KEY", "text": 'TEXT COLLATE "C"', "bytes": "BYTEA"}


def deployment_database() -> RequestsDatabase:
    """The deployment's own, opened once a process: ticks and verbs ask again and again."""
    return _opened(requests_url())


@functools.lru_cache(maxsize=16)
def _opened(url: str) -> RequestsDatabase:
    return RequestsDatabase(url)
