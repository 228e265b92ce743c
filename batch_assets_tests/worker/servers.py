"""A web server on 127.0.0.1 that misbehaves as it is told to by the path."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

from batch_assets_tests.http_server import http_server


class Handler(BaseHTTPRequestHandler):
    """`/good/…` answers with the path; what the other paths do, their methods say."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[Counter[str]] = Counter()
    times: ClassVar[list[float]] = []
    content: ClassVar[bytes] = b"content of an image"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        kind = url.path.split("/")[1]
        self.asked[url.path] += 1
        self.times.append(time.monotonic())
        with contextlib.suppress(ConnectionError):
            getattr(self, f"answer_{kind}")({k: v[0] for k, v in parse_qs(url.query).items()})

    def answer_good(self, query: dict[str, str]) -> None:
        self.answer(200)

    def answer_status(self, query: dict[str, str]) -> None:
        """`?code=404`, with `&after=` as Retry-After; from the `&times=`+1th request on, 200."""
        failing = self.asked[urlsplit(self.path).path] <= int(query.get("times", 99))
        headers = {"Retry-After": query["after"]} if "after" in query else {}
        self.answer(int(query["code"]) if failing else 200, headers)

    def answer_to(self, query: dict[str, str]) -> None:
        self.answer(302, {"Location": query["url"]})

    def answer_loop(self, query: dict[str, str]) -> None:
        self.answer(302, {"Location": self.path})

    def answer_endless(self, query: dict[str, str]) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(bytes(2**16))

    def answer_large(self, query: dict[str, str]) -> None:
        """Says how much there is, and sends nothing until it is hung up on."""
        self.send_response(200)
        self.send_header("Content-Length", "123456789")
        self.end_headers()
        self.connection.recv(1)

    def answer_short(self, query: dict[str, str]) -> None:
        """Less than it says there is."""
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"beginning")
        self.close_connection = True

    def answer_drip(self, query: dict[str, str]) -> None:
        """A byte now and then, for ever: in the headers, or `?body=1` in the body."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        if "body" in query:
            self.wfile.write(b"no\r\n\r\n")
        while True:
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.05)

    def answer(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def image_server() -> Iterator[str]:
    """The server's URL; it ends with the block."""
    Handler.asked.clear()
    Handler.times.clear()
    with http_server(Handler) as url:
        yield url
