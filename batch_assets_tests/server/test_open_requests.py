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
    assert not opened.has_room(pipeline), "nothing is known before the first count"

    def read_slowly(*arguments: Any) -> RequestAccount:
        with contextlib.suppress(BrokenBarrierError):
            both.wait(0.2)  # for the other one, which should not come
        return read_account(*arguments)

    opened.accepted(pipeline, 10)
    monkeypatch.setattr(open_requests, "read_account", read_slowly)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(opened.count, [pipeline, pipeline]))
    assert opened.has_room(pipeline, MOST - 10)
    assert not opened.has_room(pipeline, MOST - 9)
