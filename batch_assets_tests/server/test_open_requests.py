"""How many requests are open is told rightly, however many ask at a time."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any

import pytest

from batch_assets.requests.account import RequestAccount, read_account
from batch_assets.requests.bodies import BodyRules
from batch_assets.server import open_requests
from batch_assets.server.open_requests import OpenRequests
from batch_assets.server.pipelines import RequestPipeline
from batch_assets_tests.requests.builders import make_settings, open_ledger, send
from batch_assets_tests.requests.builders import open_requests as open_database

MOST = 1000


def test_counts_side_by_side_come_to_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_requests, "LEAST_SECONDS", 0.0)
    settings = make_settings(tmp_path, {"max_open": MOST})
    pipeline, database = RequestPipeline(settings, BodyRules(settings)), open_database(tmp_path)
    opened, both = OpenRequests(database, open_ledger(tmp_path)), Barrier(2)
    send(database, settings, *map(str, range(10)))
    assert opened.no_room(pipeline, "alice"), "nothing is known before the first count"

    def read_slowly(*arguments: Any) -> RequestAccount:
        with contextlib.suppress(BrokenBarrierError):
            both.wait(0.2)  # for the other one, which should not come
        return read_account(*arguments)

    with opened.accepting(pipeline, "operator", 10) as accepted:
        accepted(10)
    monkeypatch.setattr(open_requests, "read_account", read_slowly)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(opened.count, [pipeline, pipeline]))
    assert not opened.no_room(pipeline, "alice", MOST - 10)
    assert opened.no_room(pipeline, "alice", MOST - 9)


def test_what_is_not_committed_yet_when_they_are_counted_counts(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, {"tenant_max_open": 5, "tenants": {"bob": {"max_open": 7}}})
    pipeline, database = RequestPipeline(settings, BodyRules(settings)), open_database(tmp_path)
    opened = OpenRequests(database, open_ledger(tmp_path))
    send(database, settings, "1", "2", tenant="alice")
    with opened.accepting(pipeline, "alice", 2):
        opened.count(pipeline)
        assert not opened.no_room(pipeline, "alice", 1)
        assert opened.no_room(pipeline, "alice", 2)
        assert not opened.no_room(pipeline, "bob", 7)
        assert opened.no_room(pipeline, "bob", 8)
        assert not opened.no_room(pipeline, "operator", 1000), "the operator has no quota"
    assert not opened.no_room(pipeline, "alice", 3), "they came to nothing"
