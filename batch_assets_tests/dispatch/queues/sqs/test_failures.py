"""A queue on SQS while calls fail, processes die and rights are missing."""

import json
import socket
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from typing import Any

import pytest

from batch_assets.dispatch.messages import parse
from batch_assets.dispatch.queues import outbox, sqs_results, sqs_service
from batch_assets.dispatch.queues.base import Depth, Finished, Named, QueueAway
from batch_assets.dispatch.queues.sqs import SqsQueue
from batch_assets.errors import ConfigurationError
from batch_assets.requests.database import RequestsDatabase
from batch_assets_tests.dispatch.queues.sqs.steps import (
    REGION,
    claim,
    claimed_again,
    finished,
    opened,
    put,
    results_of,
    run,
)
from batch_assets_tests.http_server import http_server
from batch_assets_tests.object_store import Fault, WayToStore
from batch_assets_tests.waiting import PATIENCE_SECONDS


def after(sent: int, fault: Fault) -> Callable[[str, str, str], Fault | None]:
    """The fault for all calls but the first."""
    calls = iter(range(1_000_000))
    return lambda *_: fault if next(calls) >= sent else None


def faulty(way: WayToStore, fault: Callable[[str, str, str], Fault | None]) -> None:
    way.fault = fault


@pytest.mark.parametrize("calls", [0, 1], ids=["before its result is sent", "before it is deleted"])
def test_an_end_that_could_not_be_stored_is_stored_at_the_next_try(
    way: WayToStore, queue: SqsQueue, calls: int
) -> None:
    put(queue, "a", "b")
    ends: Sequence[Finished] = [finished(each) for each in claim(queue)]
    faulty(way, after(calls, Fault.UNHEARD))
    with pytest.raises(QueueAway):
        run(queue.finish(ends))
    faulty(way, lambda *_: None)
    run(queue.finish(ends))
    assert run(queue.depth()) == Depth(0, 0, 2)
    assert {result["id"] for result in results_of(queue)} == {"a", "b"}


def test_what_a_process_that_died_has_not_sent_is_sent_by_the_next(
    way: WayToStore, queue: SqsQueue, name: str, database: RequestsDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(queue, "a")
    (taken,) = claim(queue, lease=0.5)
    with monkeypatch.context() as patched:
        patched.setattr(outbox, "HELD_SECONDS", 0.0)
        faulty(way, after(0, Fault.UNHEARD))
        with pytest.raises(QueueAway):
            run(queue.finish([finished(taken)]))
    faulty(way, lambda *_: None)
    with opened(name, database) as next_one:
        assert [result["id"] for result in results_of(next_one)] == ["a"]
        # The message itself comes again, and is not asked again.
        again = claimed_again(next_one)
        named = Named("a", parse(again.body).token)
        assert run(next_one.look_up([named])).finished == {named}
        run(next_one.finish([Finished(again, named.token, None, None)]))
        assert run(next_one.depth()) == Depth(0, 0, 0)


def test_what_another_process_is_sending_is_left_to_it(
    way: WayToStore, queue: SqsQueue, name: str, database: RequestsDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "HELD_SECONDS", 1_000_000.0)
    put(queue, "a")
    ends = [finished(each) for each in claim(queue)]
    faulty(way, after(0, Fault.UNHEARD))
    with pytest.raises(QueueAway):
        run(queue.finish(ends))
    faulty(way, lambda *_: None)
    with opened(name, database) as other:
        assert claim(other) == []
        assert run(other.depth()).results == 0
    run(queue.finish(ends))
    assert len(results_of(queue)) == 1


def test_what_is_left_is_sent_though_no_message_comes(
    way: WayToStore, queue: SqsQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(queue, "a")
    ends = [finished(each) for each in claim(queue)]
    faulty(way, after(0, Fault.UNHEARD))
    with pytest.raises(QueueAway):
        run(queue.finish(ends))
    faulty(way, lambda *_: None)
    monkeypatch.setattr(
        sqs_results, "time", SimpleNamespace(time=time.time, monotonic=lambda: time.monotonic() + 1_000)
    )
    assert claim(queue) == []
    assert len(results_of(queue)) == 1


def test_a_server_that_is_not_there_is_away(
    database: RequestsDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    with pytest.raises(QueueAway, match="Could not connect"):
        run(SqsQueue(REGION, "queue", database).open())


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("AccessDenied", ConfigurationError),
        ("InvalidClientTokenId", ConfigurationError),
        ("RequestThrottled", QueueAway),
        ("ExpiredToken", QueueAway),
    ],
)
def test_what_the_service_refuses(
    database: RequestsDatabase, monkeypatch: pytest.MonkeyPatch, code: str, kind: type[Exception]
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            said = json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": "not you"}).encode()
            self.send_response(400)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http_server(Handler) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(kind, match=f"^{code}: not you"):
            run(SqsQueue(REGION, "queue", database).open())


@pytest.mark.parametrize("off", [0.0, 3_600.0])
def test_a_clock_that_is_ahead_is_heard(queue: SqsQueue, monkeypatch: pytest.MonkeyPatch, off: float) -> None:
    monkeypatch.setattr(
        sqs_service, "time", SimpleNamespace(time=lambda: time.time() - off, monotonic=time.monotonic)
    )
    claim(queue)
    assert abs(queue.clock_ahead - off) < PATIENCE_SECONDS
