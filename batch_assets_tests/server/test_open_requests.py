"""How many requests are open is told rightly, however many ask at a time."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

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
    database.prepare()
    opened = OpenRequests(database, open_ledger(tmp_path))
    assert not opened.has_room(pipeline), "nothing is known before the first count"

    def accept(number: int) -> None:
        opened.accepted(pipeline, 1)
        send(database, settings, str(number))
        opened.count(pipeline)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(accept, range(100)))
    opened.count(pipeline)
    assert opened.has_room(pipeline, MOST - 100)
    assert not opened.has_room(pipeline, MOST - 99)
