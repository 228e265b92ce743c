"""What a request must pass before the application sees it: the token, and a size that fits into memory.

Without the token every path but `GET /health` answers alike, so that nothing tells what there is. Whatever
is refused is refused before its body is read.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import orjson

from batch_assets.server.answers import error_body
from batch_assets.server.bodies import (
    BODY_BYTES,
    FILE_BYTES,
    MANY_BYTES,
    Headers,
    announced,
    is_encoded,
)
from batch_assets.server.limits import Limits
from batch_assets.server.tokens import Tokens

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

ONE_DOOR, MANY_DOOR, FILES_DOOR = b"/job", b"/jobs", b"/v1/files"


def is_streamed(method: bytes, path: bytes) -> bool:
    """Whether a body is handed on as it comes, since it may be longer than memory."""
    return method == b"POST" and path == FILES_DOOR


@dataclass(frozen=True)
class Refusal:
    """An answer that does not wait for the body."""

    status: int
    reason: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Gate:
    """An ASGI application around another one, which finds whose token was shown in `scope["state"]["tenant"]`."""

    def __init__(
        self, application: Application, tokens: Tokens, limits: Limits, longest: Callable[[], int] = lambda: 0
    ) -> None:
        """`longest` tells how long the body of one record may be, whatever pipeline it is for."""
        self._application = application
        self._tokens = tokens
        self._limits = limits
        self._longest = longest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await self._refuse(scope, receive, send, refusal)
            return
        if is_streamed(scope["method"].encode(), scope["raw_path"]):
            await self._application(scope, self._in_time(receive), send)
            return
        body = b""
        if not _is_health(scope):
            try:
                # Read even where it says nothing for us, so that another request may follow it.
                body = await asyncio.wait_for(_read(receive), self._limits.body_seconds)
            except TimeoutError:
                reason = f"the body did not come within {self._limits.body_seconds:g} s"
                await _answer(scope, send, Refusal(408, reason))
                await send({"type": "http.response.body", "body": b""})
                return
        await self._application(scope, _once(body, receive), send)

    def body_limit(self, method: bytes, path: bytes, headers: Headers) -> int:
        """How many bytes of a body are kept: of a stranger's, a few."""
        doors = (ONE_DOOR, MANY_DOOR, FILES_DOOR)
        if method != b"POST" or path not in doors or self._tokens.owner(headers) is None:
            return BODY_BYTES
        if path == FILES_DOOR:
            return FILE_BYTES
        return MANY_BYTES if path == MANY_DOOR else max(self._longest(), BODY_BYTES)

    def _refusal(self, scope: Scope) -> Refusal | None:
        """What the head of a request is answered, if it is refused."""
        headers = scope["headers"]
        if is_encoded(headers):
            return Refusal(411, "a body without Content-Length; send it with its length")
        if not _is_health(scope):
            tenant = self._tokens.owner(headers)
            if tenant is None:
                reason = "send the server's token: Authorization: Bearer <token>"
                return Refusal(401, reason, ((b"www-authenticate", b"Bearer"),))
            scope.setdefault("state", {})["tenant"] = tenant
        most = self.body_limit(scope["method"].encode(), scope["raw_path"], headers)
        if announced(headers) > most:
            return Refusal(413, f"a body of {announced(headers):,} bytes; here it may have {most:,}")
        return None

    def _in_time(self, receive: Receive) -> Receive:
        """What gives a body as it comes, and its client up once nothing more of it does."""

        async def next_message() -> Message:
            try:
                return await asyncio.wait_for(receive(), self._limits.body_seconds)
            except TimeoutError:
                return {"type": "http.disconnect"}

        return next_message

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
        await _answer(scope, send, refusal)
        # The client has its answer. Closed at once, with something unread, the connection would be reset, and the
        # answer lost to a client that is still sending.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_discard(receive), self._limits.head_seconds)
        await send({"type": "http.response.body", "body": b""})


async def _answer(scope: Scope, send: Send, refusal: Refusal) -> None:
    """All of an answer but its end, upon which the server closes the connection."""
    body = orjson.dumps(error_body(scope["path"], refusal.status, refusal.reason))
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


async def _read(receive: Receive) -> bytes:
    """All of the body; what there is of it where the client has gone."""
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _once(body: bytes, receive: Receive) -> Receive:
    """What gives the body that was read, then whatever else comes."""
    given = False

    async def next_message() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message
