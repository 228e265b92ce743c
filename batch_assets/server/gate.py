"""What a request must pass before the application sees it: the token, and a size that fits into memory.

Without the token every path but `GET /health` answers alike, so that nothing tells what there is. Whatever
is refused is refused before its body is read.
"""

import asyncio
import contextlib
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import orjson

from batch_assets.server.bodies import BODY_BYTES, announced, is_encoded
from batch_assets.server.limits import Limits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Refusal:
    """An answer that does not wait for the body."""

    status: int
    reason: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Gate:
    """An ASGI application around another one."""

    def __init__(self, application: Application, token: str, limits: Limits) -> None:
        self._application = application
        self._expected = f"Bearer {token}".encode()
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await self._refuse(receive, send, refusal)
            return
        if not _is_health(scope):
            try:
                # Whatever it says is not for us; but it is read, so that another request may follow it.
                await asyncio.wait_for(_discard(receive), self._limits.body_seconds)
            except TimeoutError:
                reason = f"the body did not come within {self._limits.body_seconds:g} s"
                await _answer(send, Refusal(408, reason))
                await send({"type": "http.response.body", "body": b""})
                return
        await self._application(scope, _nothing, send)

    def _refusal(self, scope: Scope) -> Refusal | None:
        """What the head of a request is answered, if it is refused."""
        headers = scope["headers"]
        if is_encoded(headers):
            return Refusal(411, "a body without Content-Length; none is needed")
        if not _is_health(scope) and not self._is_allowed(scope):
            reason = "send the server's token: Authorization: Bearer <token>"
            return Refusal(401, reason, ((b"www-authenticate", b"Bearer"),))
        if announced(headers) > BODY_BYTES:
            return Refusal(413, f"a body of more than {BODY_BYTES} bytes; none is needed")
        return None

    def _is_allowed(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, token = given[0].partition(b" ")
        # RFC 7235: the scheme's case means nothing. Compared in a time that does not tell how much is right.
        shown = b"Bearer " + token.strip() if scheme.lower() == b"bearer" else b""
        return hmac.compare_digest(shown, self._expected)

    async def _refuse(self, receive: Receive, send: Send, refusal: Refusal) -> None:
        await _answer(send, refusal)
        # The client has its answer. Closed at once, with something unread, the connection would be reset, and the
        # answer lost to a client that is still sending.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_discard(receive), self._limits.head_seconds)
        await send({"type": "http.response.body", "body": b""})


async def _answer(send: Send, refusal: Refusal) -> None:
    """All of an answer but its end, upon which the server closes the connection."""
    body = orjson.dumps({"detail": refusal.reason})
    # What is left of the request is of no use, so nothing can follow it on this connection.
    always = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send(
        {"type": "http.response.start", "status": refusal.status, "headers": [*always, *refusal.headers]}
    )
    await send({"type": "http.response.body", "body": body, "more_body": True})


def _is_health(scope: Scope) -> bool:
    return scope["path"] == "/health" and scope["method"] == "GET"


async def _discard(receive: Receive) -> None:
    """Read until the body has ended or the client has gone."""
    more = True
    while more:
        more = (await receive()).get("more_body", False)


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}
