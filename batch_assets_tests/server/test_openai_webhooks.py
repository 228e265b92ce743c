"""A batch's end is told to the URL in its metadata, in words that OpenAI's own client verifies and reads."""

import base64
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import sqlalchemy as sa

from batch_assets.server import webhooks
from batch_assets_tests.requests.builders import open_requests
from batch_assets_tests.server.openai_client import Served, call, calls, served
from batch_assets_tests.server.webhook_receiver import SECRET, Receiver, receiving
from batch_assets_tests.waiting import wait_until

KEY = "whsec_" + base64.b64encode(SECRET).decode()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(webhooks, "LOOK_SECONDS", 0.02)
    with served(tmp_path, webhook_secret=SECRET, allow_private_webhooks=True) as server:
        yield server


def untold(server: Served) -> int:
    database = open_requests(server.folder)
    with database.read() as connection:
        found = connection.scalar(sa.text("SELECT count(*) FROM requests_batch_webhooks"))
    database.dispose()
    return int(found or 0)


def test_each_kind_of_end_is_told_once_and_reads_as_openais(server: Served, receiver: Receiver) -> None:
    receiver.statuses += [503]
    metadata = {"webhook": f"{receiver.url}/ends"}
    completed = server.create(calls(3), metadata=metadata)
    failed = server.create([call("twice", "a"), call("twice", "b")], metadata=metadata)
    cancelled = server.create(calls(2), metadata=metadata | {"by": "hand"})
    server.create(calls(1), metadata={"webhooks": "are not asked for"})
    assert server.openai.batches.cancel(cancelled).status == "cancelling"
    assert receiver.heard == [], "none has ended"
    server.compute()
    wait_until(lambda: len(receiver.heard) >= 3, "no end is told")
    ends = {}
    for body, headers in receiver.received:
        event = openai.OpenAI(api_key="any").webhooks.unwrap(body.decode(), headers, secret=KEY)
        assert event.type.startswith("batch.")
        ends[event.data.id] = event.type  # type: ignore[union-attr]
    assert ends == {completed: "batch.completed", failed: "batch.failed", cancelled: "batch.cancelled"}
    told = {message["data"]["id"]: message["data"] for _, message in receiver.heard}
    assert told[completed] == server.openai.batches.retrieve(completed).to_dict()


def test_a_server_that_starts_again_tells_what_is_untold(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "LOOK_SECONDS", 3600)
    with served(tmp_path, webhook_secret=SECRET, allow_private_webhooks=True) as server:
        batch_id = server.create(calls(1), metadata={"webhook": receiver.url})
        server.compute()
    assert receiver.heard == []
    monkeypatch.setattr(webhooks, "LOOK_SECONDS", 0.02)
    with served(tmp_path, webhook_secret=SECRET, allow_private_webhooks=True) as server:
        wait_until(lambda: untold(server) == 0, "the end is not told")
    assert [message["data"]["id"] for _, message in receiver.heard] == [batch_id]


@pytest.mark.parametrize("secret", [SECRET, None], ids=["no public address", "no secret"])
def test_a_url_that_is_refused_makes_no_batch(tmp_path: Path, secret: bytes | None) -> None:
    with served(tmp_path, webhook_secret=secret) as server:
        with pytest.raises(openai.BadRequestError, match="metadata: webhook: ") as refused:
            server.create(calls(1), metadata={"webhook": "http://127.0.0.1:9/ends"})
        told = "allow-private-webhooks" if secret else "BATCH_ASSETS_WEBHOOK_SECRET"
        assert told in str(refused.value) and refused.value.param == "metadata"
        assert server.openai.batches.list().data == []
