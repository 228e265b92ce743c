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
)

counters = sa.Table(
    "ledger_counters",
    metadata,
    sa.Column("name", _text, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)

migrations = sa.Table("ledger_migrations", metadata, sa.Column("name", _text, primary_key=True))
