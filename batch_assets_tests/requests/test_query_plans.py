"""No statement about requests reads all that there ever were: after a year each costs what it does on the first day."""

import itertools
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from batch_assets.control.batch_ending import BatchEnding
from batch_assets.control.batch_taking import take_batches
from batch_assets.control.client_files import remove_client_files
from batch_assets.control.request_planning import request_source
from batch_assets.requests.account import read_account
from batch_assets.requests.batches.files import FileStore
from batch_assets.requests.batches.store import CANCELLING, BatchStore, NewBatch
from batch_assets.requests.batches.webhooks import BatchWebhooks
from batch_assets.requests.latency import recent_latencies
from batch_assets.requests.removing import Removals
from batch_assets.requests.results import Results
from batch_assets.requests.store import RequestStore
from batch_assets.requests.tenants import accepted_today, open_by_tenant
from batch_assets.requests.webhooks import Webhooks
from batch_assets_tests.control.test_batches import add_batch, batch_of, expire
from batch_assets_tests.requests.builders import (
    NAME,
    compute,
    compute_batches,
    make_request,
    make_settings,
    open_asks,
    open_requests,
)

GROWING = "requests_(?:accepted|windows|segments|shares|webhooks|files|batches|batch_lines|batch_webhooks)(?![a-z_])"
ALL_OF_ONE = re.compile(rf"SCAN {GROWING}|SEARCH {GROWING} .*\((?:pipeline|tenant|root)=\?\)$")
BOUNDED = ("ORDER BY number DESC LIMIT ?", "ORDER BY number ASC LIMIT ?", "max(generation)")
"""These read the first ones along the index."""


@contextmanager
def plans_of_statements() -> Iterator[dict[str, list[str]]]:
    """What SQLite is going to do for each statement of the block."""
    found: dict[str, list[str]] = {}

    def explain(_: Any, cursor: Any, statement: str, values: Any, _context: Any, many: bool) -> None:
        if (
            statement.split(maxsplit=1)[0] in ("SELECT", "UPDATE", "DELETE", "INSERT", "WITH")
            and statement not in found
        ):
            rows = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", values[0] if many else values)
            found[statement] = [row[3] for row in rows]

    sa.event.listen(sa.Engine, "before_cursor_execute", explain)
    try:
        yield found
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", explain)


def test_no_statement_reads_all_requests_or_windows_that_there_ever_were(tmp_path: Path) -> None:
    settings, database = make_settings(tmp_path, {"keep": "1h"}), open_requests(tmp_path)
    pipeline, store = open_asks(tmp_path, settings), RequestStore(database)
    source = request_source(settings, pipeline.storage, database)
    database.prepare()

    def post(number: int) -> str:
        tenant, key = f"t{number % 3}", f"k{number}" if number % 2 else None
        return store.accept([make_request(f"text {number}", settings, tenant, key)])[0].id

    with plans_of_statements() as plans:
        ids = [post(number) for number in range(7)]
        compute(pipeline, database)
        ids += [post(number) for number in range(7, 12)]
        source.windows.seal(everything=True)
        compute(pipeline, database)
        ids.append(post(12))
        source.planned.unplanned(10)
        read_account(database, pipeline.ledger, NAME)
        open_by_tenant(database, pipeline.ledger, NAME)
        accepted_today(database, NAME)
        first = store.find(ids[0])
        assert first is not None and first.window is not None
        Results(database, pipeline.ledger).look_up(first)
        for tenant in (None, "t1"):
            store.newest(NAME, tenant, 100, 3)
            store.in_window(NAME, first.window, tenant)
        recent_latencies(database, pipeline.ledger, NAME)
        Webhooks(database).take(10, {}, 2)
        last = store.find(ids[-1])
        assert last is not None and store.cancel(last)
        removals = Removals(database, NAME)
        removals.begin(1, 7, 0)
        assert first.window in removals.windows(1)
        removals.remove_requests(first.window)
        removals.end(1)
        removals.remove_cancelled(time.time())
    assert len(plans) > 30
    assert not at_fault(plans)


def test_no_statement_reads_all_files_or_batches_that_there_ever_were(tmp_path: Path) -> None:
    settings, database = make_settings(tmp_path), open_requests(tmp_path)
    pipeline, store, files = open_asks(tmp_path, settings), BatchStore(database), FileStore(database)
    ending = BatchEnding(pipeline, database)
    database.prepare()
    with plans_of_statements() as plans:
        ids = [add_batch(database, settings, [f"{number}", f"{number + 1}"]) for number in range(3)]
        compute_batches(pipeline, database, ending)
        cancelled = batch_of(database, add_batch(database, settings, ["one"]))
        assert store.move(cancelled, CANCELLING)
        late = add_batch(database, settings, ["two"])
        while take_batches(pipeline, database):
            pass
        expire(database, late)
        ending.end_batches()
        one = batch_of(database, ids[0])
        new = NewBatch(
            "t", NAME, one.endpoint, one.input_file, "1h", 60, 60, None, webhook="http://127.0.0.1:9/"
        )
        for is_repeated in (True, False):
            store.create(new, is_repeated=is_repeated)
        shards = [row.key for row in pipeline.ledger.shards(NAME)]
        assert store.in_shard(NAME, shards[0])
        store.all_failed(NAME, 3600, 5)
        BatchWebhooks(database).take(10, {}, 2)
        for tenant, before in ((None, None), ("t", None), ("t", 3), (None, 3)):
            store.newest(tenant, before, 2)
        for tenant, after, is_oldest_first in itertools.product((None, "t"), (None, 3), (True, False)):
            files.listed(tenant, "batch", after, 2, oldest_first=is_oldest_first)
        read = files.find(one.input_file)
        assert read is not None
        files.delete(read)
        remove_client_files(pipeline, database)
        store.remove_ended(NAME, time.time() + 1)
    assert len(plans) > 20
    # What has not ended is bounded by max_open.
    assert not at_fault(plans, "ended_at IS NULL")


def at_fault(plans: dict[str, list[str]], *bounded: str) -> dict[str, list[str]]:
    return {
        statement: plan
        for statement, plan in plans.items()
        if any(map(ALL_OF_ONE.match, plan)) and not any(part in statement for part in (*BOUNDED, *bounded))
    }
