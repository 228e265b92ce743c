"""A queue on SQS, by a real server on this machine: every message ends once, whatever fails on the way."""

import asyncio
import contextlib
import functools
import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batch_assets.dispatch.messages import parse
from batch_assets.dispatch.queues import remembered, sqs
from batch_assets.dispatch.queues.base import Claimed, Depth, Finished, Named, QueueAway, Returned
from batch_assets.dispatch.queues.sqs import MOST_BYTES, SqsQueue, beside
from batch_assets.errors import BatchAssetsError, ConfigurationError
from batch_assets.requests.database import RequestsDatabase
from batch_assets_tests.http_server import http_server
from batch_assets_tests.object_store import Fault, WayToStore, s3_server, use_s3
from batch_assets_tests.waiting import wait_until

REGION, LONG = "us-east-1", 1_000.0
run = asyncio.run


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patched, s3_server() as address:
        one_at_a_time(patched)
        yield address


def one_at_a_time(patched: pytest.MonkeyPatch) -> None:
    """Let moto do each step as a whole, as SQS does: of two deletions at once, it may forget one."""
    from moto.sqs.models import SQSBackend

    lock = threading.Lock()

    def alone(step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def locked(*arguments: Any, **named: Any) -> Any:
            with lock:
                return step(*arguments, **named)

        return locked

    for name in (
        "receive_message", "send_message_batch", "delete_message_batch", "change_message_visibility_batch",
    ):  # fmt: skip
        patched.setattr(SQSBackend, name, alone(getattr(SQSBackend, name)))


@pytest.fixture
def database(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RequestsDatabase:
    use_s3(endpoint, monkeypatch)
    return RequestsDatabase(f"sqlite:///{tmp_path / 'requests.db'}")


@pytest.fixture
def name(database: RequestsDatabase) -> str:
    made = f"queue-{uuid.uuid4().hex[:8]}"
    create(made)
    return made


def client() -> Any:
    import boto3

    return boto3.Session().client("sqs", region_name=REGION)


def create(name: str, **attributes: str) -> None:
    client().create_queue(QueueName=name, Attributes=attributes)


@contextlib.contextmanager
def opened(name: str, database: RequestsDatabase, results: str | None = None) -> Iterator[SqsQueue]:
    queue = SqsQueue(REGION, name, database, results)
    run(queue.open())
    yield queue
    run(queue.close())


@pytest.fixture
def queue(name: str, database: RequestsDatabase) -> Iterator[SqsQueue]:
    with opened(name, database) as made:
        yield made


def message(message_id: str) -> bytes:
    return json.dumps({"id": message_id, "payload": {"messages": []}}).encode()


def finished(claimed: Claimed, result: bytes | None = None, *, is_dead: bool = False) -> Finished:
    read = parse(claimed.body)
    return Finished(claimed, read.token, result or read.shape.answer(200, b"{}"), is_dead)


def claim(queue: SqsQueue, most: int = 10, lease: float = LONG) -> list[Claimed]:
    return run(queue.claim(most, lease))


def claimed_again(queue: SqsQueue) -> Claimed:
    """The one message, when it is delivered again."""
    taken: list[Claimed] = []
    wait_until(lambda: taken.extend(claim(queue)) or taken, pause=0.05)
    (one,) = taken
    return one


def results_of(queue: SqsQueue) -> list[Any]:
    return [json.loads(result) for result in run(queue.take_results(100))]


def put(queue: SqsQueue, *ids: str) -> None:
    run(queue.put([message(each) for each in ids]))


def test_a_message_ends_with_one_result_and_is_gone(queue: SqsQueue) -> None:
    before = time.time()
    put(queue, "a")
    (taken,) = claim(queue)
    assert (taken.body, taken.attempts) == (message("a"), 0)
    assert taken.arrived is not None and abs(taken.arrived - before) < 300
    run(queue.finish([finished(taken)]))
    assert run(queue.depth()) == Depth(0, 0, 1)
    assert results_of(queue) == [{"id": "a", "payload": {}, "status_code": 200}]
    assert run(queue.depth()) == Depth(0, 0, 0)
    assert results_of(queue) == []


def test_results_tell_their_token(queue: SqsQueue, name: str) -> None:
    put(queue, "a")
    (taken,) = claim(queue)
    run(queue.finish([finished(taken)]))
    consumer = client()
    url = consumer.get_queue_url(QueueName=f"{name}-results")["QueueUrl"]
    (found,) = consumer.receive_message(QueueUrl=url, MessageAttributeNames=["All"])["Messages"]
    assert found["MessageAttributes"]["token"]["StringValue"] == parse(message("a")).token


def test_many_at_once(queue: SqsQueue) -> None:
    ids = {f"id-{number}" for number in range(95)}
    put(queue, *ids)
    first = claim(queue, 25)
    rest = claim(queue, 1_000)
    assert len(first) == 25
    assert {parse(each.body).id for each in [*first, *rest]} == ids
    run(queue.finish([finished(each) for each in [*first, *rest]]))
    assert {result["id"] for result in results_of(queue)} == ids
    assert run(queue.depth()) == Depth(0, 0, 0)


def test_a_message_that_is_not_finished_in_its_lease_comes_again(queue: SqsQueue) -> None:
    put(queue, "a")
    assert len(claim(queue, lease=0.5)) == 1
    again = claimed_again(queue)
    assert (again.body, again.attempts) == (message("a"), 1)


def test_a_claim_is_held_for_as_long_as_was_said_last(queue: SqsQueue) -> None:
    put(queue, "a")
    taken = claim(queue, lease=LONG)
    run(queue.extend(taken, 0.5))
    assert claimed_again(queue).attempts == 1


def test_finished_twice_is_one_result(queue: SqsQueue) -> None:
    put(queue, "a")
    (first,) = claim(queue, lease=0.5)
    second = claimed_again(queue)
    run(queue.finish([finished(second, b'{"id":"a","payload":1}')]))
    run(queue.finish([finished(first, b'{"id":"a","payload":2}')]))
    run(queue.finish([finished(second, b'{"id":"a","payload":3}')]))
    assert results_of(queue) == [{"id": "a", "payload": 1}]


def test_a_message_that_is_put_again_after_its_end_is_known(queue: SqsQueue) -> None:
    put(queue, "a")
    run(queue.finish([finished(each) for each in claim(queue)]))
    put(queue, "a")
    (taken,) = claim(queue)
    wanted, other = Named("a", parse(taken.body).token), Named("b", "another")
    assert run(queue.look_up([wanted, other])).finished == {wanted}
    run(queue.finish([Finished(taken, wanted.token, None)]))
    assert run(queue.depth()) == Depth(0, 0, 1)


def test_what_is_given_back_comes_at_once_or_after_its_pause(queue: SqsQueue) -> None:
    put(queue, "a", "b")
    now, later = sorted(claim(queue), key=lambda each: each.body)
    run(queue.give_back([Returned(now, 1), Returned(later, 1, pause=90_000)]))
    again = claimed_again(queue)
    assert (again.body, again.attempts) == (message("a"), 1)
    assert claim(queue) == []
    assert run(queue.depth()) == Depth(0, 2, 0)


def test_nothing_happens_to_a_message_that_somebody_else_has_finished(queue: SqsQueue) -> None:
    put(queue, "a", "b")
    gone, here = claim(queue)
    run(queue.finish([finished(gone)]))
    run(queue.extend([gone, here], LONG))
    run(queue.give_back([Returned(gone, 1), Returned(here, 1)]))
    assert claimed_again(queue).body == here.body


def test_an_id_is_cancelled_until_it_is_asked_anew(queue: SqsQueue) -> None:
    named, other = Named("a", "token"), Named("b", "token-b")
    run(queue.cancel("a"))
    run(queue.cancel("a"))
    assert run(queue.look_up([named, other])).cancelled == {named}
    put(queue, "a")
    assert run(queue.look_up([named, other])).cancelled == frozenset()


def test_no_message_is_known_to_have_passed_its_deadline(queue: SqsQueue) -> None:
    put(queue, "a")
    assert run(queue.claim(10, LONG, expired_only=True)) == []
    assert run(queue.depth()) == Depth(1, 0, 0)


def test_a_result_that_is_too_large_says_so(queue: SqsQueue) -> None:
    put(queue, "a", "b")
    large = b'{"id":"%s","payload":"' + MOST_BYTES * b"x" + b'"}'
    taken = claim(queue)
    run(
        queue.finish(
            [finished(each, large.replace(b"%s", parse(each.body).id.encode())) for each in taken[:1]]
            + [finished(each) for each in taken[1:]]
        )
    )
    told = {result["id"]: result for result in results_of(queue)}
    failed = told.pop(parse(taken[0].body).id)
    assert failed.keys() == {"id", "error", "error_code", "error_message"}
    assert failed["error_code"] == "INFERENCE_ERROR"
    assert "too large for SQS" in failed["error_message"]
    assert [result["status_code"] for result in told.values()] == [200]
    assert run(queue.depth()) == Depth(0, 0, 0)


def test_an_id_that_makes_a_result_too_large_does_not_block_the_queue(queue: SqsQueue) -> None:
    put(queue, "a")
    (taken,) = claim(queue)
    run(queue.finish([finished(taken, json.dumps({"id": MOST_BYTES * "i"}).encode())]))
    (told,) = results_of(queue)
    assert told["id"].startswith("iii") and told["error_code"] == "INFERENCE_ERROR"


def test_results_that_are_large_together_go_in_several_batches(queue: SqsQueue) -> None:
    ids = {f"id-{number}" for number in range(12)}
    put(queue, *ids)
    taken = claim(queue, 20)
    payload = 600_000 * "x"
    run(
        queue.finish(
            [
                finished(each, json.dumps({"id": parse(each.body).id, "payload": payload}).encode())
                for each in taken
            ]
        )
    )
    assert {result["id"] for result in results_of(queue) if result["payload"] == payload} == ids


def test_a_queue_of_results_that_takes_less_gets_an_error(name: str, database: RequestsDatabase) -> None:
    create(f"{name}-small", MaximumMessageSize="1024")
    with opened(name, database, results=f"{name}-small") as queue:
        put(queue, "a", "b", "c")
        taken = sorted(claim(queue), key=lambda each: each.body)
        long = json.dumps({"id": "b", "payload": 2_000 * "x"}).encode()
        run(queue.finish([finished(taken[0]), finished(taken[1], long), finished(taken[2])]))
        told = {result["id"]: result.get("error_code") for result in results_of(queue)}
        assert told == {"a": None, "b": "INFERENCE_ERROR", "c": None}
        assert run(queue.depth()) == Depth(0, 0, 0)


def test_characters_that_sqs_does_not_take_are_escaped(queue: SqsQueue) -> None:
    put(queue, "a")
    (taken,) = claim(queue)
    run(queue.finish([finished(taken, '{"id":"a","payload":"ä\uffff😀"}'.encode())]))
    (raw,) = run(queue.take_results(1))
    assert b"\\uffff" in raw
    assert json.loads(raw) == {"id": "a", "payload": "ä\uffff😀"}


def test_what_cannot_be_put_is_said(queue: SqsQueue) -> None:
    with pytest.raises(BatchAssetsError, match="SQS takes text only"):
        run(queue.put([b"\xff"]))
    with pytest.raises(BatchAssetsError, match=r"SQS refuses it: .*1048576"):
        run(queue.put([message("x" * MOST_BYTES)]))


def test_a_dead_letter_is_kept_beside_its_result(queue: SqsQueue, name: str) -> None:
    put(queue, "a")
    run(queue.finish([finished(each, is_dead=True) for each in claim(queue)]))
    consumer = client()
    url = consumer.get_queue_url(QueueName=f"{name}-dead")["QueueUrl"]
    assert [each["Body"].encode() for each in consumer.receive_message(QueueUrl=url)["Messages"]] == [
        message("a")
    ]
    assert len(results_of(queue)) == 1


def test_fifo_queues(database: RequestsDatabase) -> None:
    name = f"queue-{uuid.uuid4().hex[:8]}.fifo"
    create(name, FifoQueue="true")
    assert beside(name, "dead") == name.replace(".fifo", "-dead.fifo")
    with opened(name, database) as queue:
        put(queue, "a", "b")
        taken = claim(queue)
        assert len(taken) == 2
        run(queue.finish([finished(each, is_dead=True) for each in taken]))
        assert {result["id"] for result in results_of(queue)} == {"a", "b"}
        assert run(queue.depth()) == Depth(0, 0, 0)


def test_queues_that_exist_already_are_used(name: str, database: RequestsDatabase) -> None:
    create(f"{name}-results", VisibilityTimeout="7")
    with opened(name, database), opened(name, database) as queue:
        put(queue, "a")
        run(queue.finish([finished(each) for each in claim(queue)]))
        assert len(results_of(queue)) == 1


def test_a_queue_that_does_not_exist_is_said(database: RequestsDatabase) -> None:
    with pytest.raises(
        ConfigurationError, match=r"queue nowhere: there is no such queue .* us-east-1; create"
    ):
        run(SqsQueue(REGION, "nowhere", database).open())


# Failures on the way.


def after(sent: int, fault: Fault) -> Callable[[str, str, str], Fault | None]:
    """The fault for all calls but the first."""
    calls = iter(range(1_000_000))
    return lambda *_: fault if next(calls) >= sent else None


@pytest.fixture
def way(endpoint: str, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[WayToStore]:
    """The way to the service, on which faults can be met."""
    with WayToStore(endpoint, lambda *_: None) as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
        yield made


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
        patched.setattr(remembered, "HELD_SECONDS", 0.0)
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
        run(next_one.finish([Finished(again, named.token, None)]))
        assert run(next_one.depth()) == Depth(0, 0, 0)


def test_what_another_process_is_sending_is_left_to_it(
    way: WayToStore, queue: SqsQueue, name: str, database: RequestsDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "HELD_SECONDS", 1_000_000.0)
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
        sqs, "time", SimpleNamespace(time=time.time, monotonic=lambda: time.monotonic() + 1_000)
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
        sqs, "time", SimpleNamespace(time=lambda: time.time() - off, monotonic=time.monotonic)
    )
    claim(queue)
    if off:
        assert abs(queue.clock_ahead - off) < 60
    else:
        assert abs(queue.clock_ahead) < 60
