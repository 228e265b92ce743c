"""How a database comes to the shape of `schema.py`: numbered steps, applied once each, in order.

A step that has been released is never changed; a new shape is a new step at the end. Steps are
written out in SQL, not taken from `schema.py`, which moves on.
"""

import time
from collections.abc import Callable

import sqlalchemy as sa

from batch_assets.errors import ConfigurationError, LedgerError
from batch_assets.ledger import schema
from batch_assets.ledger.database import Database, LedgerAway

Migration = Callable[[sa.Connection], None]
MIGRATIONS: list[Migration] = []


def migration(step: Migration) -> Migration:
    """Append a step; its function's name is what the database remembers."""
    MIGRATIONS.append(step)
    return step


def migrate(database: Database) -> None:
    """Apply the steps that `database` lacks. Safe when several processes open it at once.

    Raises ConfigurationError where a newer version of this package has been there before, and where
    it cannot be written.
    """
    known = [step.__name__ for step in MIGRATIONS]
    # Looked up without the write lock first: opening a ledger in use is the normal case.
    with database.read() as connection:
        exists = sa.inspect(connection).has_table(schema.migrations.name)
        applied = _applied(connection) if exists else set()
    if applied - set(known):
        raise ConfigurationError(
            f"ledger {database.url_shown}: written by a newer version of Batch Assets "
            f"({', '.join(sorted(applied - set(known)))}); upgrade this one, or name another ledger "
            "in BATCH_ASSETS_LEDGER_URL"
        )
    if applied == set(known):
        return
    try:
        _bring_up_to_date(database)
    except LedgerAway:
        raise
    except LedgerError as error:
        raise ConfigurationError(
            f"ledger {database.url_shown}: {database.reason(error.__cause__ or error)}; it lacks what this version of "
            f"Batch Assets adds ({', '.join(name for name in known if name not in applied)}): run "
            "`batch-assets status` once where it can be written, and as a user who may"
        ) from error


def _bring_up_to_date(database: Database) -> None:
    with database.write() as connection:
        _execute(connection, "CREATE TABLE IF NOT EXISTS ledger_migrations (name {text} PRIMARY KEY)")
        applied = _applied(connection)
        for step in MIGRATIONS:
            if step.__name__ not in applied:
                step(connection)
                connection.execute(sa.insert(schema.migrations).values(name=step.__name__))


def _applied(connection: sa.Connection) -> set[str]:
    return set(connection.scalars(sa.select(schema.migrations.c.name)))


def _execute(connection: sa.Connection, *statements: str) -> None:
    text = 'TEXT COLLATE "C"' if connection.dialect.name == "postgresql" else "TEXT"
    for statement in statements:
        connection.exec_driver_sql(statement.replace("{text}", text))


@migration
def m001_tables(connection: sa.Connection) -> None:
    """Pipelines, shards, their tallies, source files, named leases, runs."""
    _execute(
        connection,
        """CREATE TABLE ledger_pipelines (
            name {text} PRIMARY KEY, root {text} NOT NULL, epoch BIGINT NOT NULL, fingerprint {text},
            generation BIGINT NOT NULL DEFAULT 0, revision BIGINT NOT NULL DEFAULT 0,
            automation BOOLEAN NOT NULL DEFAULT FALSE, stop_requested BOOLEAN NOT NULL DEFAULT FALSE)""",
        """CREATE TABLE ledger_shards (
            pipeline {text} NOT NULL, key {text} NOT NULL,
            generation BIGINT NOT NULL, ordinal BIGINT NOT NULL,
            state {text} NOT NULL, superseded BOOLEAN NOT NULL DEFAULT FALSE,
            records BIGINT NOT NULL, bytes BIGINT NOT NULL, rejected BIGINT NOT NULL DEFAULT 0,
            embedded BIGINT NOT NULL DEFAULT 0, failed BIGINT NOT NULL DEFAULT 0, tokens BIGINT,
            attempt BIGINT NOT NULL DEFAULT 0, fence BIGINT NOT NULL,
            outdated_fence BIGINT NOT NULL DEFAULT -1, fingerprint {text}, holder {text},
            lease_until DOUBLE PRECISION, run_id {text}, error {text}, picture {text}, picture_due BIGINT,
            revision BIGINT NOT NULL, updated_at DOUBLE PRECISION NOT NULL, PRIMARY KEY (pipeline, key))""",
        "CREATE INDEX ledger_shards_by_state ON ledger_shards (pipeline, superseded, state, key)",
        "CREATE INDEX ledger_shards_by_revision ON ledger_shards (revision)",
        "CREATE INDEX ledger_shards_by_pipeline_revision ON ledger_shards (pipeline, revision)",
        "CREATE INDEX ledger_shards_by_holder ON ledger_shards (holder) WHERE holder IS NOT NULL",
        """CREATE INDEX ledger_shards_by_picture_due ON ledger_shards (picture_due)
            WHERE picture_due IS NOT NULL""",
        """CREATE TABLE ledger_tallies (
            pipeline {text} NOT NULL, state {text} NOT NULL, fingerprint {text} NOT NULL,
            shards BIGINT NOT NULL, records BIGINT NOT NULL, bytes BIGINT NOT NULL,
            rejected BIGINT NOT NULL, embedded BIGINT NOT NULL, failed BIGINT NOT NULL,
            tokens BIGINT NOT NULL, PRIMARY KEY (pipeline, state, fingerprint))""",
        """CREATE TABLE ledger_files (
            pipeline {text} NOT NULL, path {text} NOT NULL, size BIGINT NOT NULL, version {text} NOT NULL,
            generation BIGINT NOT NULL, state {text} NOT NULL, PRIMARY KEY (pipeline, path))""",
        """CREATE TABLE ledger_leases (
            name {text} PRIMARY KEY, fence BIGINT NOT NULL, holder {text},
            seconds DOUBLE PRECISION NOT NULL, lease_until DOUBLE PRECISION)""",
        """CREATE TABLE ledger_runs (
            run_id {text} PRIMARY KEY, pipeline {text} NOT NULL, host {text} NOT NULL,
            holder {text} NOT NULL)""",
        "CREATE INDEX ledger_runs_by_host ON ledger_runs (host)",
        "CREATE TABLE ledger_counters (name {text} PRIMARY KEY, value BIGINT NOT NULL)",
    )
    # A sensor's cursor outlives a lost ledger: begun at the clock's milliseconds, the revisions
    # of the next ledger are higher than any that the lost one gave.
    connection.execute(sa.insert(schema.counters).values(name="revision", value=int(time.time() * 1000)))


@migration
def m002_merged_revision(connection: sa.Connection) -> None:
    """What `merge_ready` compares, so that nothing is merged twice."""
    _execute(connection, "ALTER TABLE ledger_pipelines ADD COLUMN merged_revision BIGINT")


@migration
def m003_deferred(connection: sa.Connection) -> None:
    """Jobs at a service: their queue, submissions, slots and money; notices given once."""
    _execute(
        connection,
        "ALTER TABLE ledger_pipelines ADD COLUMN deferred BOOLEAN NOT NULL DEFAULT FALSE",
        "ALTER TABLE ledger_pipelines ADD COLUMN recovered BOOLEAN NOT NULL DEFAULT FALSE",
        "ALTER TABLE ledger_pipelines ADD COLUMN held_usd DOUBLE PRECISION NOT NULL DEFAULT 0",
        "ALTER TABLE ledger_pipelines ADD COLUMN spent_usd DOUBLE PRECISION NOT NULL DEFAULT 0",
        "ALTER TABLE ledger_pipelines ADD COLUMN blocked {text}",
        "ALTER TABLE ledger_pipelines ADD COLUMN blocked_kind {text}",
        "ALTER TABLE ledger_shards ADD COLUMN job BIGINT",
        "ALTER TABLE ledger_shards ADD COLUMN before {text}",
        "ALTER TABLE ledger_shards ADD COLUMN collect_after DOUBLE PRECISION",
        "ALTER TABLE ledger_shards ADD COLUMN collections BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE ledger_shards ADD COLUMN commit_fence BIGINT",
        "ALTER TABLE ledger_shards ADD COLUMN keep_fence BIGINT",
        "ALTER TABLE ledger_shards ADD COLUMN queued_at DOUBLE PRECISION",
        "ALTER TABLE ledger_shards ADD COLUMN queued_records BIGINT",
        """CREATE INDEX ledger_shards_by_collect_after ON ledger_shards (pipeline, collect_after, key)
            WHERE collect_after IS NOT NULL""",
        """CREATE INDEX ledger_shards_by_queued_at ON ledger_shards (pipeline, queued_at, key)
            WHERE queued_at IS NOT NULL""",
        """CREATE INDEX ledger_shards_by_queued_records
            ON ledger_shards (pipeline, queued_records, queued_at, key) WHERE queued_records IS NOT NULL""",
        """CREATE TABLE ledger_jobs (
            pipeline {text} NOT NULL, shard {text} NOT NULL, fence BIGINT NOT NULL, kind {text} NOT NULL,
            records BIGINT NOT NULL, bytes BIGINT NOT NULL, bound_usd DOUBLE PRECISION NOT NULL,
            held_usd DOUBLE PRECISION, cost_usd DOUBLE PRECISION, submission {text},
            digest {text} NOT NULL DEFAULT '',
            queued_at DOUBLE PRECISION NOT NULL, PRIMARY KEY (pipeline, shard, fence))""",
        "CREATE INDEX ledger_jobs_by_submission ON ledger_jobs (submission) WHERE submission IS NOT NULL",
        """CREATE INDEX ledger_jobs_by_held_usd ON ledger_jobs (pipeline, shard, fence)
            WHERE held_usd IS NOT NULL""",
        """CREATE TABLE ledger_submissions (
            token {text} PRIMARY KEY, pipeline {text} NOT NULL, scope {text} NOT NULL, name {text} NOT NULL,
            service_id {text}, state {text} NOT NULL, message {text}, jobs BIGINT NOT NULL,
            records BIGINT NOT NULL, bound_usd DOUBLE PRECISION NOT NULL,
            claimed_at DOUBLE PRECISION NOT NULL, submitted_at DOUBLE PRECISION,
            ended_at DOUBLE PRECISION)""",
        "CREATE INDEX ledger_submissions_by_scope ON ledger_submissions (scope, state)",
        "CREATE INDEX ledger_submissions_by_pipeline ON ledger_submissions (pipeline, state)",
        "CREATE INDEX ledger_submissions_by_service_id ON ledger_submissions (service_id)",
        "CREATE INDEX ledger_submissions_by_name ON ledger_submissions (name)",
        """CREATE TABLE ledger_scopes (
            name {text} PRIMARY KEY, slots BIGINT, foreign_jobs BIGINT NOT NULL DEFAULT 0,
            observed_at DOUBLE PRECISION, oldest_active DOUBLE PRECISION,
            paused_until DOUBLE PRECISION NOT NULL DEFAULT 0, rejections BIGINT NOT NULL DEFAULT 0,
            calls_from DOUBLE PRECISION NOT NULL DEFAULT 0)""",
        "CREATE TABLE ledger_notices (key {text} PRIMARY KEY, at DOUBLE PRECISION NOT NULL)",
    )


@migration
def m004_children(connection: sa.Connection) -> None:
    """How one job of a submission ended, where others of it go on; and orders to start a pipeline."""
    _execute(
        connection,
        "ALTER TABLE ledger_jobs ADD COLUMN state {text}",
        """CREATE TABLE ledger_triggers (
            pipeline {text} NOT NULL, key {text} NOT NULL, state {text} NOT NULL,
            at DOUBLE PRECISION NOT NULL, updated_at DOUBLE PRECISION NOT NULL, message {text},
            PRIMARY KEY (pipeline, key))""",
        "CREATE INDEX ledger_triggers_by_state ON ledger_triggers (state, pipeline)",
    )


@migration
def m005_trigger_origin(connection: sa.Connection) -> None:
    """Who gave an order: a schedule's is carried out by sensors, a web hook's by `batch-assets serve` too."""
    _execute(connection, "ALTER TABLE ledger_triggers ADD COLUMN origin {text} NOT NULL DEFAULT 'webhook'")


@migration
def m006_configuration(connection: sa.Connection) -> None:
    """What a pipeline was opened with here: what its output root says of that is data, and grants nothing."""
    _execute(connection, "ALTER TABLE ledger_pipelines ADD COLUMN configuration {text}")


@migration
def m007_deployment(connection: sa.Connection) -> None:
    """The id in an output root's `pipeline.json`: epochs begin anew where a root is made anew."""
    _execute(connection, "ALTER TABLE ledger_pipelines ADD COLUMN deployment {text}")


@migration
def m008_patience(connection: sa.Connection) -> None:
    """Whether a transaction was kept whose answer was lost; and runs of which only silence tells that they died."""
    _execute(
        connection,
        """CREATE TABLE ledger_receipts (
            writer {text} PRIMARY KEY, receipt {text} NOT NULL, at DOUBLE PRECISION NOT NULL)""",
        "ALTER TABLE ledger_runs ADD COLUMN alive_until DOUBLE PRECISION NOT NULL DEFAULT 0",
    )


@migration
def m009_story(connection: sa.Connection) -> None:
    """What happened to each shard, and why; those that are there begin theirs now."""
    _execute(
        connection,
        "ALTER TABLE ledger_shards ADD COLUMN told BIGINT NOT NULL DEFAULT 0",
        """CREATE TABLE ledger_story (
            pipeline {text} NOT NULL, shard {text} NOT NULL, number BIGINT NOT NULL,
            at DOUBLE PRECISION NOT NULL, attempt BIGINT NOT NULL, fence BIGINT NOT NULL, job BIGINT,
            event {text} NOT NULL, reason {text} NOT NULL, decision {text} NOT NULL,
            PRIMARY KEY (pipeline, shard, number))""",
    )


@migration
def m010_breaker(connection: sa.Connection) -> None:
    """Pipelines whose jobs fail as a whole, one after the other: nothing more is submitted but a probe."""
    _execute(
        connection,
        "ALTER TABLE ledger_pipelines ADD COLUMN did_well_at DOUBLE PRECISION",
        "ALTER TABLE ledger_jobs ADD COLUMN failed_whole BOOLEAN NOT NULL DEFAULT FALSE",
        """CREATE TABLE ledger_breakers (
            pipeline {text} PRIMARY KEY, state {text} NOT NULL, alike {text} NOT NULL, failures BIGINT NOT NULL,
            message {text} NOT NULL, since DOUBLE PRECISION NOT NULL, settings {text} NOT NULL,
            renewed_at DOUBLE PRECISION NOT NULL DEFAULT 0, insisted BOOLEAN NOT NULL DEFAULT FALSE)""",
    )
