"""What a request must pass before the application sees it: the token, and a size that fits into memory.

Without the token every path but `GET /health` answers alike, so that nothing tells what there is.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

BODY_BYTES = 64 * 1024
BODY_SECONDS = 30.0

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Gate:
    """An ASGI application around another one."""

    def __init__(self, application: Application, token: str) -> None:
        self._application = application
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        if scope["path"] == "/health" and scope["method"] == "GET":
            await self._application(scope, _nothing, send)
            return
        if not self._is_allowed(scope):
            reason = "send the server's token: Authorization: Bearer <token>"
            await _refuse(send, 401, reason, (b"www-authenticate", b"Bearer"))
            return
        try:
            # Whatever it says is not for us; but it is read, and only so much of it.
            size = await asyncio.wait_for(_read(receive), BODY_SECONDS)
        except TimeoutError:
            await _refuse(send, 408, f"the body did not come within {BODY_SECONDS:g} s")
            return
        if size > BODY_BYTES:
            await _refuse(send, 413, f"a body of more than {BODY_BYTES} bytes; none is needed")
            return
        await self._application(scope, _nothing, send)

    def _is_allowed(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, token = given[0].partition(b" ")
        # RFC 7235: the scheme's case means nothing. Compared in a time that does not tell how much is right.
        shown = b"Bearer " + token.strip() if scheme.lower() == b"bearer" else b""
        return hmac.compare_digest(shown, self._expected)


async def _read(receive: Receive) -> int:
    """Bytes of the body; once they are too many, the rest is left."""
    size = 0
    while size <= BODY_BYTES:
        message = await receive()
        size += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body", False):
            break
    return size


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _refuse(send: Send, status: int, reason: str, *headers: tuple[bytes, bytes]) -> None:
    body = orjson.dumps({"detail": reason})
    # What is left of the request is not read any more, so nothing can follow it on this connection.
    always = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": [*always, *headers]})
    await send({"type": "http.response.body", "body": body})
