"""An S3 that runs on this machine, and the environment that leads to it."""

import contextlib
import functools
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from enum import Enum
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlparse

import pytest

from batch_assets_tests.http_server import http_server


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """The endpoint of a server on 127.0.0.1, which ends with the block."""
    from moto.server import ThreadedMotoServer

    _write_one_at_a_time()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def _write_one_at_a_time() -> None:
    """Let moto look at a condition and write in one step, as S3 does: in two, of two writers at once both may win."""
    from moto.s3.responses import S3Response

    put = S3Response.put_object
    if hasattr(put, "__wrapped__"):
        return
    lock = threading.Lock()

    @functools.wraps(put)
    def put_alone(self: Any) -> Any:
        with lock:
            return put(self)

    S3Response.put_object = put_alone  # type: ignore[method-assign]


def use_s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Point the environment at the server and return a client; `bucket` exists there and is empty."""
    import boto3

    settings = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket="bucket")
    for found in client.list_objects_v2(Bucket="bucket").get("Contents", []):
        client.delete_object(Bucket="bucket", Key=found["Key"])
    return client


class Fault(Enum):
    """What befalls a request on its way to the store."""

    REFUSED = "503 Slow Down, and nothing done"
    UNHEARD = "no answer, and nothing done"
    ANSWER_LOST = "no answer, and all done"
    EXPIRED = "400 ExpiredToken, and nothing done"
    NO_UPLOAD = "404 NoSuchUpload, and nothing done"


_ANSWERS = {
    Fault.REFUSED: (503, "SlowDown"),
    Fault.EXPIRED: (400, "ExpiredToken"),
    Fault.NO_UPLOAD: (404, "NoSuchUpload"),
}


class WayToStore:
    """A server that hands requests on to `endpoint`, but for those that `fault` (method, path, access key) finds."""

    url: str

    def __init__(self, endpoint: str, fault: Callable[[str, str, str], Fault | None]) -> None:
        self.fault = fault
        self.met: list[Fault] = []
        way, address = self, urlparse(endpoint).netloc

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def hand_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                key = self.headers.get("authorization", "").partition("Credential=")[2].partition("/")[0]
                fault = way.fault(self.command, self.path, key)
                if fault is not None:
                    way.met.append(fault)
                if fault in _ANSWERS:
                    status, code = _ANSWERS[fault]
                    said = f"<Error><Code>{code}</Code><Message>not now</Message></Error>".encode()
                    self._answer(status, {}, said)
                    return
                found, headers, content = None, dict[str, str](), b""
                if fault is not Fault.UNHEARD:
                    store = http.client.HTTPConnection(address)
                    store.request(self.command, self.path, body, dict(self.headers))
                    found = store.getresponse()
                    content, headers = found.read(), dict(found.getheaders())
                    store.close()
                if found is None or fault is not None:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self._answer(found.status, headers, content)

            def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response_only(status)
                size = headers.get("Content-Length") if self.command == "HEAD" else None
                own = ("content-length", "transfer-encoding", "connection")
                kept = {name: value for name, value in headers.items() if name.lower() not in own}
                for name, value in {**kept, "Content-Length": size or str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = hand_on  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._serving = http_server(Handler)

    def __enter__(self) -> "WayToStore":
        self.url = self._serving.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._serving.__exit__(None, None, None)


def first(
    number: int, fault: Fault, method: str = "", part: str = ""
) -> Callable[[str, str, str], Fault | None]:
    """The fault for so many requests of this method whose path holds `part`."""
    left = iter(range(number))

    def find(called: str, path: str, key: str) -> Fault | None:
        if called.startswith(method) and part in path and next(left, None) is not None:
            return fault
        return None

    return find
