"""What a tenant may have open, and accepted in a day; nobody else is held up by it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from batch_assets.control.request_planning import plan_requests, request_source
from batch_assets.requests.bodies import BodyRules
from batch_assets.server.open_requests import OpenRequests
from batch_assets.server.pipelines import RequestPipeline
from batch_assets_tests.requests.builders import open_asks, open_requests
from batch_assets_tests.server.test_request_doors import serving
from batch_assets_tests.waiting import wait_until

BODY = b'{"text": "a"}'
BOB, OPERATOR = "b" * 16, "o" * 16


def test_a_tenant_has_so_many_open_and_others_theirs(tmp_path: Path) -> None:
    with serving(tmp_path, {"tenant_max_open": 3, "tenants": {"bob": {"max_open": 4}}}) as client:
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda _: client.post(BODY)[0], range(12)))
        assert sorted(statuses) == [202] * 3 + [429] * 9
        assert "at most 3 requests of tenant alice may be open" in client.post(BODY)[1]["detail"]
        assert [client.post(BODY, token=BOB)[0] for _ in range(5)] == [202] * 4 + [429]
        assert client.post(BODY, token=OPERATOR)[0] == 202
        # All of a body or nothing of it.
        assert client.ask("POST", "/jobs", BODY + b"\n" + BODY)[0] == 429
        client.compute()
        wait_until(lambda: client.post(BODY)[0] == 202, "what has ended still counts")


def test_a_sealed_request_is_open_until_it_has_ended(tmp_path: Path) -> None:
    with serving(tmp_path, {"tenant_max_open": 3}) as client:
        assert [client.post(BODY)[0] for _ in range(3)] == [202] * 3
        pipeline = open_asks(tmp_path, client.settings)
        source = request_source(client.settings, pipeline.storage, open_requests(tmp_path))
        source.windows.seal(everything=True)
        assert client.post(BODY)[0] == 429
        plan_requests(pipeline, source)
        counted = OpenRequests(open_requests(tmp_path), pipeline.ledger)
        asks = RequestPipeline(client.settings, BodyRules(client.settings))
        counted.count(asks)
        assert counted.no_room(asks, "alice")
        assert client.post(BODY)[0] == 429


def test_a_tenant_has_so_many_a_day_whatever_has_ended(tmp_path: Path) -> None:
    with serving(tmp_path, {"tenant_max_per_day": 4, "tenants": {"bob": {"max_per_day": 0}}}) as client:
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda _: client.post(BODY)[0], range(12)))
        assert sorted(statuses) == [202] * 4 + [429] * 8
        client.compute()
        assert client.post(BODY, token=BOB)[0] == 429
        wait_until(lambda: "try again tomorrow" in client.post(BODY)[1]["detail"], "it is not sure")
        assert client.post(BODY, token=OPERATOR)[0] == 202


def test_who_asks_again_with_a_key_is_told_however_many_there_are(tmp_path: Path) -> None:
    with serving(tmp_path, {"tenant_max_per_day": 1}) as client:
        status, first = client.post(BODY, Idempotency_Key="k")
        assert status == 202
        assert client.post(BODY, Idempotency_Key="k") == (200, first)
        assert client.post(b'{"text": "b"}', Idempotency_Key="k")[0] == 422
        assert client.post(BODY, Idempotency_Key="l")[0] == 429


def test_what_was_accepted_counts_behind_a_restart(tmp_path: Path) -> None:
    for most in (2, 3):
        with serving(tmp_path, {"tenant_max_per_day": most}) as client:
            statuses = [client.post(BODY)[0] for _ in range(4)]
            assert statuses.count(202) == (2 if most == 2 else 1)
