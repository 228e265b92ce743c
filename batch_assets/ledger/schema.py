"""The ledger's tables, as its code uses them now.

How a database gets to this shape is in `migrations.py`; a change here needs a migration there.
Text compares byte by byte on every database (PostgreSQL would else sort by locale), so that
keys and paths have one order everywhere. Times are unix seconds.
"""

import sqlalchemy as sa

FENCES_PER_EPOCH = 1_000_000
"""Fences of the ledger that has a root's epoch e run from (e - 1) times this."""

metadata = sa.MetaData()

_text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

pipelines = sa.Table(
    "ledger_pipelines",
    metadata,
    sa.Column("name", _text, primary_key=True),
    sa.Column("root", _text, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("fingerprint", _text),
    sa.Column("generation", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("revision", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("automation", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("stop_requested", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("merged_revision", sa.BigInteger),
    sa.Column("deferred", sa.Boolean, nullable=False, server_default=sa.false()),
    # Whether the root's and the service's jobs have been told to this ledger since it came to the root.
    sa.Column("recovered", sa.Boolean, nullable=False, server_default=sa.false()),
    # US dollars: reserved by jobs that are not settled, and paid for those that are.
    sa.Column("held_usd", sa.Double, nullable=False, server_default="0"),
    sa.Column("spent_usd", sa.Double, nullable=False, server_default="0"),
    # Why nothing more is submitted, and of which kind that is: budget, refused or output. Beside it `breakers`.
    sa.Column("blocked", _text),
    sa.Column("blocked_kind", _text),
    # What this deployment opened the pipeline with, as JSON: what it allows was granted here, not by the root.
    sa.Column("configuration", _text),
    # The root's own id, by which one that was made anew is told from the one before.
    sa.Column("deployment", _text),
    # When a shard was committed last of which any record did well; what an earlier ledger has seen does not count.
    sa.Column("did_well_at", sa.Double),
)

shards = sa.Table(
    "ledger_shards",
    metadata,
    sa.Column("pipeline", _text, primary_key=True),
    sa.Column("key", _text, primary_key=True),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("ordinal", sa.BigInteger, nullable=False),
    sa.Column("state", _text, nullable=False),
    sa.Column("superseded", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("records", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("rejected", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("embedded", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("failed", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("tokens", sa.BigInteger),
    sa.Column("attempt", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("fence", sa.BigInteger, nullable=False),
    # A commit marker with this fence or a lower one is older than an order to compute again.
    sa.Column("outdated_fence", sa.BigInteger, nullable=False, server_default="-1"),
    sa.Column("fingerprint", _text),
    sa.Column("holder", _text),
    sa.Column("lease_until", sa.Double),
    sa.Column("run_id", _text),
    sa.Column("error", _text),
    # The state last reported to Dagster; picture_due is a revision while that is still owed.
    sa.Column("picture", _text),
    sa.Column("picture_due", sa.BigInteger),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
    # The fence of the newest job; null before the first, and when all is to be done again.
    sa.Column("job", sa.BigInteger),
    # While held: where a claim that is given back puts the shard.
    sa.Column("before", _text),
    # Set exactly while there is something to collect that nobody holds: from when on.
    sa.Column("collect_after", sa.Double),
    # Claims that failed since the last success, beside the attempts at the service.
    sa.Column("collections", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("commit_fence", sa.BigInteger),
    # The good rows of the commit with this fence are kept when the shard is done again.
    sa.Column("keep_fence", sa.BigInteger),
    # Set exactly while the shard waits for a slot: its place in the queue, and its job's records.
    sa.Column("queued_at", sa.Double),
    sa.Column("queued_records", sa.BigInteger),
    # How many entries its story has had: the newest one's number.
    sa.Column("told", sa.BigInteger, nullable=False, server_default="0"),
)

# What happened to each shard, and why: `story.py`.
story = sa.Table(
    "ledger_story",
    metadata,
    sa.Column("pipeline", _text, primary_key=True),
    sa.Column("shard", _text, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("attempt", sa.BigInteger, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("job", sa.BigInteger),
    sa.Column("event", _text, nullable=False),
    sa.Column("reason", _text, nullable=False),
    sa.Column("decision", _text, nullable=False),
)

# One attempt at one shard at a service; `fence` is that of the claim that rendered its requests.
jobs = sa.Table(
    "ledger_jobs",
    metadata,
    sa.Column("pipeline", _text, primary_key=True),
    sa.Column("shard", _text, primary_key=True),
    sa.Column("fence", sa.BigInteger, primary_key=True),
    sa.Column("kind", _text, nullable=False),
    sa.Column("records", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("bound_usd", sa.Double, nullable=False),
    # The bound while it is reserved; null before and after.
    sa.Column("held_usd", sa.Double),
    sa.Column("cost_usd", sa.Double),
    sa.Column("submission", _text),
    # Of its request files: in its name at the service, so that a name met again means the same.
    sa.Column("digest", _text, nullable=False, server_default=""),
    sa.Column("queued_at", sa.Double, nullable=False),
    # How it ended, where its submission goes on with others; null else.
    sa.Column("state", _text),
    # It was counted among those that failed as a whole: once, however often it is judged.
    sa.Column("failed_whole", sa.Boolean, nullable=False, server_default=sa.false()),
)

submissions = sa.Table(
    "ledger_submissions",
    metadata,
    sa.Column("token", _text, primary_key=True),
    sa.Column("pipeline", _text, nullable=False),
    sa.Column("scope", _text, nullable=False),
    sa.Column("name", _text, nullable=False),
    sa.Column("service_id", _text),
    sa.Column("state", _text, nullable=False),
    sa.Column("message", _text),
    sa.Column("jobs", sa.BigInteger, nullable=False),
    sa.Column("records", sa.BigInteger, nullable=False),
    sa.Column("bound_usd", sa.Double, nullable=False),
    sa.Column("claimed_at", sa.Double, nullable=False),
    sa.Column("submitted_at", sa.Double),
    sa.Column("ended_at", sa.Double),
)

scopes = sa.Table(
    "ledger_scopes",
    metadata,
    sa.Column("name", _text, primary_key=True),
    sa.Column("slots", sa.BigInteger),
    sa.Column("foreign_jobs", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("observed_at", sa.Double),
    sa.Column("oldest_active", sa.Double),
    sa.Column("paused_until", sa.Double, nullable=False, server_default="0"),
    sa.Column("rejections", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("calls_from", sa.Double, nullable=False, server_default="0"),
)

# A pipeline whose jobs have failed as a whole, with none between them that did well: `breakers.py`.
breakers = sa.Table(
    "ledger_breakers",
    metadata,
    sa.Column("pipeline", _text, primary_key=True),
    sa.Column("state", _text, nullable=False),
    # What the last failure was, without what differs from record to record; and how many there were.
    sa.Column("alike", _text, nullable=False),
    sa.Column("failures", sa.BigInteger, nullable=False),
    sa.Column("message", _text, nullable=False),
    # Since when the breaker is in this state.
    sa.Column("since", sa.Double, nullable=False),
    # Digests of all settings that were tried meanwhile, with spaces between.
    sa.Column("settings", _text, nullable=False),
    # Jobs that were submitted before this tell nothing of what a person has mended since.
    sa.Column("renewed_at", sa.Double, nullable=False, server_default="0"),
    # A person has said `retry` and changed no setting.
    sa.Column("insisted", sa.Boolean, nullable=False, server_default=sa.false()),
)

notices = sa.Table(
    "ledger_notices",
    metadata,
    sa.Column("key", _text, primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
)

# Orders to start a pipeline, one for each key; open while waiting or running.
triggers = sa.Table(
    "ledger_triggers",
    metadata,
    sa.Column("pipeline", _text, primary_key=True),
    sa.Column("key", _text, primary_key=True),
    sa.Column("state", _text, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
    sa.Column("message", _text),
    # Who gave it: schedule or webhook.
    sa.Column("origin", _text, nullable=False),
)

# Sums over shards that are not superseded, kept in the transaction of every change, so that a
# count costs the same at 20 shards and at 20,000. A fingerprint of "" stands for none.
tallies = sa.Table(
    "ledger_tallies",
    metadata,
    sa.Column("pipeline", _text, primary_key=True),
    sa.Column("state", _text, primary_key=True),
    sa.Column("fingerprint", _text, primary_key=True),
    sa.Column("shards", sa.BigInteger, nullable=False),
    sa.Column("records", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("rejected", sa.BigInteger, nullable=False),
    sa.Column("embedded", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False),
)

files = sa.Table(
    "ledger_files",
    metadata,
    sa.Column("pipeline", _text, primary_key=True),
    sa.Column("path", _text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("version", _text, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("state", _text, nullable=False),
)

leases = sa.Table(
    "ledger_leases",
    metadata,
    sa.Column("name", _text, primary_key=True),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("holder", _text),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("lease_until", sa.Double),
)

runs = sa.Table(
    "ledger_runs",
    metadata,
    sa.Column("run_id", _text, primary_key=True),
    sa.Column("pipeline", _text, nullable=False),
    sa.Column("host", _text, nullable=False),
    sa.Column("holder", _text, nullable=False),
    # 0 where a process noted it that knew of no such thing: no silence of it tells anything.
    sa.Column("alive_until", sa.Double, nullable=False, server_default="0"),
)

counters = sa.Table(
    "ledger_counters",
    metadata,
    sa.Column("name", _text, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)

# What each writer has written last, so that it can tell whether that was kept: `receipts.py`.
receipts = sa.Table(
    "ledger_receipts",
    metadata,
    sa.Column("writer", _text, primary_key=True),
    sa.Column("receipt", _text, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
)

migrations = sa.Table("ledger_migrations", metadata, sa.Column("name", _text, primary_key=True))
