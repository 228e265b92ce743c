"""Clients hear of their requests' ends, once a receiver has answered: signed, and at public addresses only."""

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from batch_assets.errors import ConfigurationError
from batch_assets.requests.results import Results
from batch_assets.requests.webhooks import Webhooks
from batch_assets.server import webhooks
from batch_assets.server.webhooks import read_secret, why_refused
from batch_assets_tests.fakes import FakeHost
from batch_assets_tests.requests.builders import compute, open_asks, open_ledger, open_requests
from batch_assets_tests.server.test_request_doors import Client, serving
from batch_assets_tests.server.webhook_receiver import SECRET, Receiver, receiving
from batch_assets_tests.waiting import wait_until


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(webhooks, "LOOK_SECONDS", 0.02)
    with serving(tmp_path, webhook_secret=SECRET, allow_private_webhooks=True) as client:
        yield client


def post(client: Client, receiver: Receiver, text: str) -> str:
    """Post a record whose end is to be told; its id."""
    status, taken = client.post(
        json.dumps({"text": text}).encode(), X_Webhook_Url=f"{receiver.url}/ends?of=job"
    )
    assert status == 202, taken
    job_id: str = taken["job_id"]
    return job_id


def rows(client: Client) -> int:
    database = open_requests(client.folder)
    with database.read() as connection:
        found = connection.scalar(sa.text("SELECT count(*) FROM requests_webhooks"))
    database.dispose()
    return int(found or 0)


def all_told(client: Client) -> None:
    wait_until(lambda: rows(client) == 0, "an end is not told")


def test_the_end_of_a_request_is_told_once(client: Client, receiver: Receiver) -> None:
    first, second = post(client, receiver, "one"), post(client, receiver, "two")
    cancelled = post(client, receiver, "three")
    assert client.ask("POST", f"/job/{cancelled}/cancel")[0] == 200
    client.post(b'{"text": "nobody is told"}')
    client.compute()
    all_told(client)
    assert sorted(receiver.jobs()) == sorted([first, second, cancelled])
    told = {message["data"]["job_id"]: message for _, message in receiver.heard}
    assert (told[first]["type"], told[cancelled]["type"]) == ("job.completed", "job.cancelled")
    job = client.ask("GET", f"/job/{first}")[1]
    assert told[first]["data"].items() <= job.items() and "result" not in told[first]["data"]
    assert (
        'webhooks_total{pipeline="asks",result="told"} 3' in client.ask("GET", "/metrics", token="o" * 16)[1]
    )


def test_a_failed_request_is_told_with_its_reason(client: Client, receiver: Receiver) -> None:
    job_id = post(client, receiver, "one")
    host = FakeHost()

    def fail(_: object) -> None:
        raise RuntimeError("the device is on fire")

    host.before = fail
    database = open_requests(client.folder)
    for _ in range(3):
        compute(open_asks(client.folder, client.settings, host), database)
    database.dispose()
    all_told(client)
    [(_, message)] = receiver.heard
    assert (message["type"], message["data"]["job_id"]) == ("job.failed", job_id)
    assert "the device is on fire" in message["data"]["error"]["message"]


def test_a_receiver_that_fails_is_told_again_under_the_same_id(
    client: Client, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "WEBHOOK_PAUSES_SECONDS", (0.01,) * 9)
    receiver.statuses += [500, 307, 429]
    job_id = post(client, receiver, "one")
    client.compute()
    all_told(client)
    assert [name for name, _ in receiver.heard] == [job_id] * 4, "and no redirect is followed"


def test_a_receiver_that_never_takes_it_is_given_up(
    client: Client, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "WEBHOOK_PAUSES_SECONDS", (0.01, 0.01))
    receiver.statuses += [500] * 3
    post(client, receiver, "one")
    client.compute()
    all_told(client)
    assert len(receiver.heard) == 3
    assert 'result="given_up"} 1' in client.ask("GET", "/metrics", token="o" * 16)[1]


def test_what_a_dead_server_had_begun_to_send_is_sent_by_another(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "LOOK_SECONDS", 3600)
    with serving(tmp_path, webhook_secret=SECRET, allow_private_webhooks=True) as client:
        job_id = post(client, receiver, "one")
        client.compute()
    database = open_requests(tmp_path)
    found = Webhooks(database)
    ended = Results(database, open_ledger(tmp_path)).ended_segments(
        "asks", found.open_windows("asks", "", 10)
    )
    found.note_ended("asks", ended)
    monkeypatch.setattr("batch_assets.requests.due_ends.WEBHOOK_CLAIM_SECONDS", 0.5)
    assert [one.id for one in found.take(10, {}, 10)] == [job_id]
    assert found.take(10, {}, 10) == [], "it is at work with one"
    database.dispose()
    monkeypatch.setattr(webhooks, "LOOK_SECONDS", 0.02)
    with serving(tmp_path, webhook_secret=SECRET, allow_private_webhooks=True) as client:
        all_told(client)
    assert receiver.jobs() == [job_id]


def test_a_receiver_that_does_not_answer_keeps_nobody_elses_waiting(
    client: Client, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "ANSWER_SECONDS", 3600)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hung = Receiver(f"http://127.0.0.1:{silent.getsockname()[1]}")
        for number in range(10):
            post(client, hung, str(number))
        client.compute()
        wait_until(lambda: client.ask("GET", "/jobs?status=completed")[1]["jobs"], "nothing is computed")
        silent.accept()
        job_id = post(client, receiver, "one")
        client.compute()
        wait_until(lambda: receiver.jobs() == [job_id], "the hung ones are waited for")
        assert rows(client) >= 10


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/x",
        "http://[::ffff:10.0.0.1]/",
        "http://localhost/",
        "http://169.254.169.254/latest",
        "http://0x7f000001/",
        "ftp://example.com/",
        "http:///x",
        "https://user:password@example.com/",
        "https://example.com/\u00fc",
        "https://[::1/",
        "https://example.com/" + "x" * 2_000,
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    assert (why_refused("X-Webhook-Url", url, can_sign=True, allow_private=False) or "").startswith(
        "X-Webhook-Url: "
    )


def test_a_url_that_is_refused_takes_no_request(tmp_path: Path) -> None:
    with serving(tmp_path, webhook_secret=SECRET) as client:
        status, told = client.post(b'{"text": "one"}', X_Webhook_Url="http://127.0.0.1:9/")
        assert (status, "--allow-private-webhooks" in told["detail"]) == (422, True)
        many = client.ask("POST", "/jobs", b'{"text": "one"}\n', X_Webhook_Url="https://example.com/")
        assert many[0] == 422
        assert client.ask("GET", "/jobs")[1]["jobs"] == []


def test_an_address_that_became_private_is_not_called(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(webhooks, "WEBHOOK_PAUSES_SECONDS", (0.01,))
    monkeypatch.setattr(webhooks, "public_addresses", lambda host, port: ["93.184.216.34"])
    with serving(tmp_path, webhook_secret=SECRET) as client:
        post(client, receiver, "one")
        client.compute()
        all_told(client)
    assert receiver.heard == []


def test_a_secret_is_what_the_specification_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BATCH_ASSETS_WEBHOOK_SECRET", raising=False)
    assert read_secret() is None
    monkeypatch.setenv("BATCH_ASSETS_WEBHOOK_SECRET", "whsec_" + base64.b64encode(SECRET).decode())
    assert read_secret() == SECRET
    for wrong in ("whsec_", "whsec_c2hvcnQ=", "no base64 at all"):
        monkeypatch.setenv("BATCH_ASSETS_WEBHOOK_SECRET", wrong)
        with pytest.raises(ConfigurationError, match="openssl rand -base64 32"):
            read_secret()
