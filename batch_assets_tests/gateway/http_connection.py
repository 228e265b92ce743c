"""One connection of an HTTP server that may also misbehave: hang up, or send half of what it announced.

Frameworks forbid that, and are several times slower. httptools parses; one request at a time, as
clients without pipelining send them.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

import httptools


@dataclass(slots=True)
class Request:
    """What came. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Reply:
    """What goes out. Of the body only `sent` bytes are sent, if given, before the connection is closed."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    sent: int | None = None


Handler = Callable[[Request], Awaitable[Reply | None]]


class Connection(asyncio.Protocol):
    """Answers each request by `handler`; None of it hangs up. A handler is cancelled when its caller hangs up."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._parser = httptools.HttpRequestParser(self)
        self._task: asyncio.Task[None] | None = None
        self._url, self._headers, self._body = b"", dict[str, str](), list[bytes]()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", {}, []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        method, keep = self._parser.get_method().decode(), self._parser.should_keep_alive()
        request = Request(method, self._url.decode(), self._headers, b"".join(self._body))
        self._task = asyncio.get_running_loop().create_task(self._answer(request, keep))

    async def _answer(self, request: Request, keep: bool) -> None:
        try:
            reply = await self._handler(request)
        except Exception:  # a fault of the server's own, which its caller must not wait for
            traceback.print_exc()
            reply = None
        if reply is None:
            self._transport.abort()
            return
        head = f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}\r\nContent-Type: {reply.content_type}\r\n"
        head += f"Content-Length: {len(reply.body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
        self._transport.write(head.encode() + b"\r\n" + reply.body[: reply.sent])
        if reply.sent is not None or not keep:
            self._transport.close()
