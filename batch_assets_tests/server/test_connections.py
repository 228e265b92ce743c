"""A real server and bare sockets: what makes no progress is ended, and nobody's idle connections keep others out."""

import asyncio
import contextlib
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import h11
import pytest

from batch_assets.server.bodies import BODY_BYTES
from batch_assets.server.connections import DROPPED_BYTES, create_server
from batch_assets.server.gate import Gate, Message, Receive, Scope, Send
from batch_assets.server.limits import Limits
from batch_assets.server.tokens import OPERATOR, Tokens
from batch_assets_tests.waiting import PATIENCE_SECONDS, wait_until

TOKEN = "0123456789abcdef-0123456789"
LONG = 10 * PATIENCE_SECONDS
PATIENT = Limits(head_seconds=LONG, body_seconds=LONG, answer_seconds=LONG)
"""No deadline of these is what a test waits for."""
SHORT = 0.2
GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
GET_HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
AUTHORIZED = b"Authorization: Bearer " + TOKEN.encode() + b"\r\n"


class Server:
    """A server in a thread, whose application counts its calls and answers once it may."""

    def __init__(self, limits: Limits, answer: bytes = b"ok") -> None:
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.calls = 0
        self._answer = answer
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._server = create_server(Gate(self._application, Tokens({TOKEN: OPERATOR}), limits), limits)
        run = self._server.run
        self._thread = threading.Thread(target=lambda: run(sockets=[self._listening]), daemon=True)

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.may_answer.set()
        self._server.should_exit = True
        self._thread.join(PATIENCE_SECONDS)
        self._listening.close()
        assert not self._thread.is_alive()

    @property
    def connections(self) -> int:
        return len(self._server.server_state.connections)

    @contextmanager
    def client(self) -> Iterator[socket.socket]:
        with socket.create_connection(self._listening.getsockname(), PATIENCE_SECONDS) as client:
            yield client

    async def _application(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        self.calls += 1
        await asyncio.to_thread(self.may_answer.wait, PATIENCE_SECONDS)
        length = (b"content-length", str(len(self._answer)).encode())
        start: Message = {"type": "http.response.start", "status": 200, "headers": [length]}
        await send(start)
        await send({"type": "http.response.body", "body": self._answer})


def rest(client: socket.socket) -> bytes:
    """All that the server still sends, once it has closed the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65_536):
            received += part
    return received


def answer(client: socket.socket) -> bytes:
    """One answer, up to the end of its headers at least."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = client.recv(65_536)
        assert part, received
        received += part
    return received


def dripping(client: socket.socket) -> Callable[[], bool]:
    """Sends a byte each time it is asked; whether the server has closed the connection."""
    client.setblocking(False)

    def ended() -> bool:
        try:
            client.send(b"x")
            return client.recv(65_536, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    return ended


@pytest.mark.parametrize("sent", [b"", b"GE", GET, POST + b"Content-Le"])
def test_a_head_that_does_not_come_ends_the_connection(sent: bytes) -> None:
    with Server(replace(PATIENT, head_seconds=SHORT)) as server, server.client() as client:
        client.sendall(sent)
        assert rest(client) == b""
        assert server.calls == 0


def test_a_head_that_comes_byte_by_byte_ends_it_too() -> None:
    with Server(replace(PATIENT, head_seconds=SHORT)) as server, server.client() as client:
        client.sendall(GET + b"X-Slow: ")
        wait_until(dripping(client))


def test_a_second_head_has_the_same_deadline() -> None:
    def answered_and_ended(seconds: float) -> bool:
        with Server(replace(PATIENT, head_seconds=seconds)) as server, server.client() as client:
            client.sendall(GET + AUTHORIZED + b"\r\n" + GET)
            return rest(client).startswith(b"HTTP/1.1 200")

    # A slow machine may not get to the first head within the first of these.
    assert any(answered_and_ended(seconds) for seconds in (SHORT, 5.0, 60.0))


def test_a_body_that_does_not_come_is_answered_and_ends_it() -> None:
    with Server(replace(PATIENT, body_seconds=SHORT)) as server, server.client() as client:
        client.sendall(POST + AUTHORIZED + b"Content-Length: 100\r\n\r\nhalf")
        assert rest(client).startswith(b"HTTP/1.1 408")
        assert server.calls == 0


def test_a_body_that_comes_byte_by_byte_does_too() -> None:
    limits = replace(PATIENT, body_seconds=SHORT, head_seconds=SHORT)
    with Server(limits) as server, server.client() as client:
        client.sendall(POST + AUTHORIZED + b"Content-Length: 60000\r\n\r\n")
        wait_until(dripping(client))
        assert server.calls == 0


def test_a_body_after_a_head_that_needs_none_holds_nothing() -> None:
    with Server(replace(PATIENT, head_seconds=SHORT)) as server, server.client() as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n")
        wait_until(dripping(client))


def test_without_a_token_the_answer_comes_before_the_body() -> None:
    with Server(PATIENT) as server, server.client() as client:
        client.sendall(POST + b"Content-Length: 60000\r\nExpect: 100-continue\r\n\r\n")
        assert answer(client).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("size", [BODY_BYTES + 1, 10**15])
def test_too_long_a_body_is_refused_before_it_comes(size: int) -> None:
    with Server(PATIENT) as server, server.client() as client:
        client.sendall(POST + AUTHORIZED + b"Content-Length: %d\r\n\r\n" % size)
        assert answer(client).startswith(b"HTTP/1.1 413")
        assert server.calls == 0


def test_a_client_that_sends_all_of_it_first_still_gets_its_answer() -> None:
    with Server(PATIENT) as server, server.client() as client:
        client.sendall(POST + b"Content-Length: 8000000\r\n\r\n" + b"x" * 8_000_000)
        received = rest(client)
        assert received.startswith(b"HTTP/1.1 401")
        assert json.loads(received.partition(b"\r\n\r\n")[2])["detail"].startswith("send the server's token")


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the server's HTTP parser has made of what came, one for each step of its work."""
    made: list[object] = []
    parse = h11.Connection.next_event

    def counted(self: h11.Connection) -> object:
        made.append(parse(self))
        return made[-1]

    monkeypatch.setattr(h11.Connection, "next_event", counted)
    return made


@pytest.mark.parametrize("head", [POST, POST + AUTHORIZED, GET_HEALTH, GET + AUTHORIZED])
def test_a_body_in_chunks_is_refused_unparsed(head: bytes, events: list[object]) -> None:
    with Server(PATIENT) as server, server.client() as client:
        client.sendall(head + CHUNKED + b"1\r\na\r\n" * 10_000)
        received = answer(client)
        assert received.startswith(b"HTTP/1.1 411") and b"connection: close" in received.lower()
        client.sendall(b"1\r\na\r\n" * 10_000)
        with server.client() as another:
            another.sendall(GET + AUTHORIZED + b"\r\n")
            assert answer(another).startswith(b"HTTP/1.1 200")
        assert server.calls == 1
        assert len(events) < 20


def test_a_refused_body_ends_with_the_deadline() -> None:
    with Server(replace(PATIENT, head_seconds=SHORT)) as server, server.client() as client:
        client.sendall(POST + CHUNKED)
        wait_until(dripping(client))


@pytest.mark.parametrize("framing", [CHUNKED, b"Content-Length: %d\r\n\r\n" % 10**15])
def test_a_refused_body_ends_with_its_size(framing: bytes) -> None:
    with Server(PATIENT) as server, server.client() as client:
        client.sendall(POST + framing)
        with contextlib.suppress(OSError):
            client.sendall(b"x" * (DROPPED_BYTES + 1))
        wait_until(lambda: server.connections == 0)


def test_health_takes_no_long_body(events: list[object]) -> None:
    with Server(PATIENT) as server, server.client() as client:
        client.sendall(GET_HEALTH + b"Content-Length: 8000000\r\n\r\n" + b"x" * 8_000_000)
        assert rest(client).startswith(b"HTTP/1.1 413")
        assert server.calls == 0 and len(events) < 20


@pytest.mark.parametrize("head", [GET_HEALTH, POST, POST + AUTHORIZED])
def test_a_short_body_is_parsed_once_however_it_comes(head: bytes, events: list[object]) -> None:
    with Server(PATIENT) as server, server.client() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(head + b"Content-Length: 1000\r\n\r\n")
        for _ in range(1000):
            client.sendall(b"x")
        status = b"401" if head == POST else b"200"
        assert answer(client).startswith(b"HTTP/1.1 " + status)
        if head != POST:
            client.sendall(GET + AUTHORIZED + b"\r\n")
            assert answer(client).startswith(b"HTTP/1.1 200"), "the next request on the connection"
        assert len(events) < 30


@pytest.mark.parametrize("head", [POST, POST + AUTHORIZED, GET_HEALTH])
@pytest.mark.parametrize("sent", [CHUNKED + b"zz\r\n", b"Content-Length: 1\r\n\r\nxzz\r\n\r\n"])
def test_what_is_no_http_after_a_head_logs_nothing(
    head: bytes, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with Server(PATIENT) as server, server.client() as client:
        client.sendall(head + sent)
        assert answer(client)
        client.shutdown(socket.SHUT_WR)
        rest(client)
        wait_until(lambda: server.connections == 0)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_client_that_reads_nothing_is_left() -> None:
    limits = replace(PATIENT, answer_seconds=SHORT)
    with Server(limits, answer=b"x" * 50_000_000) as server, server.client() as client:
        client.sendall(GET + AUTHORIZED + b"\r\n")
        wait_until(lambda: server.calls == 1)
        wait_until(lambda: server.connections == 0)
        assert len(rest(client)) < 50_000_000


def test_idle_connections_keep_nobody_out() -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(replace(PATIENT, connections=3)))
        idle = [stack.enter_context(server.client()) for _ in range(20)]
        for client in idle[::2]:
            with contextlib.suppress(OSError):  # it is one of those that had to go
                client.sendall(GET)
        asking = stack.enter_context(server.client())
        asking.sendall(GET + AUTHORIZED + b"\r\n")
        assert answer(asking).startswith(b"HTTP/1.1 200")
        assert server.connections <= 3


def test_nor_do_those_that_were_refused_and_go_on_sending() -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(replace(PATIENT, connections=3)))
        for _ in range(3):
            refused = stack.enter_context(server.client())
            refused.sendall(POST + b"Content-Length: 60000\r\n\r\n")
            assert answer(refused).startswith(b"HTTP/1.1 401")
        asking = stack.enter_context(server.client())
        asking.sendall(GET + AUTHORIZED + b"\r\n")
        assert answer(asking).startswith(b"HTTP/1.1 200")


def test_where_all_are_at_work_one_more_is_told_so_and_theirs_go_on() -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(replace(PATIENT, connections=3)))
        server.may_answer.clear()
        at_work = [stack.enter_context(server.client()) for _ in range(3)]
        for client in at_work:
            client.sendall(GET + AUTHORIZED + b"\r\n")
        wait_until(lambda: server.calls == 3)
        assert rest(stack.enter_context(server.client())).startswith(b"HTTP/1.1 503")
        server.may_answer.set()
        for client in at_work:
            assert answer(client).startswith(b"HTTP/1.1 200")
