"""What a connection may cost before anybody has shown a token: how long it is waited for, and how many there are.

uvicorn waits for the head of a request for ever, and for a client that does not read what it is sent. Here
each wait has a deadline, and the number of connections has a limit, at which those that nothing is owed go first.
What comes after an answer that did not wait for it is thrown away unparsed, up to a limit.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from batch_assets.server.bodies import BodyLimit, short_bodies
from batch_assets.server.limits import Limits

if TYPE_CHECKING:
    import uvicorn

    from batch_assets.server.gate import Application

BACKLOG = 128
DROPPED_BYTES = 16 * 1024 * 1024
"""Of a body that is refused: so much may come while the client has not read its answer yet."""
END_SECONDS = 5
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
    b'connection: close\r\n\r\n{"detail": "too many connections; try again in a moment"}'
)


def create_server(
    application: "Application",
    limits: Limits,
    body_limit: BodyLimit = short_bodies,
    is_streamed: Callable[[bytes, bytes], bool] = lambda _method, _path: False,
) -> "uvicorn.Server":
    """A server of `application` that keeps to the limits; the body's deadline is kept by whoever reads it."""
    import uvicorn

    config = uvicorn.Config(
        application,
        # Its parser, unlike httptools, also limits how long a head may be (16 KiB).
        http=_limited_protocol(limits, body_limit, is_streamed),
        ws="none",
        backlog=BACKLOG,
        log_config=None,
        log_level="error",  # not what strangers send that is no HTTP: that would fill the log
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=END_SECONDS,
    )
    return uvicorn.Server(config)


def _limited_protocol(
    limits: Limits, body_limit: BodyLimit, is_streamed: Callable[[bytes, bytes], bool]
) -> type[asyncio.Protocol]:
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from batch_assets.server.parsing import Parser

    class LimitedProtocol(H11Protocol):
        """One connection. `since` is when the server began to wait for what it waits for."""

        since: float
        _parser: Parser
        _waiting: asyncio.TimerHandle | None = None
        _writing: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.conn = self._parser = Parser(h11.SERVER)
            self._parser.limit, self._parser.is_streamed = body_limit, is_streamed
            self._wait_for_head()
            if len(self.connections) > limits.connections:
                _make_room(self)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if not self._parser.is_dropping:
                return
            if self._parser.dropped > DROPPED_BYTES:
                self.transport.abort()
            elif self._parser.dropped >= self._parser.expected:
                # The parser has not seen the body, so it cannot tell the application that this is its end.
                self.cycle.more_body = False
                self.cycle.message_event.set()

        def handle_events(self) -> None:
            before = self.cycle
            super().handle_events()
            if self.cycle is not before:  # the head is complete
                self._stop_waiting()

        def on_response_complete(self) -> None:
            # Before the next head is looked for, which may have come already.
            self._wait_for_head()
            super().on_response_complete()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._writing = self.loop.call_later(limits.answer_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._writing is not None:
                self._writing.cancel()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)
            self.resume_writing()

        @property
        def is_owed_nothing(self) -> bool:
            """Whether no request is complete that has not been answered."""
            return not self.cycle or self.cycle.response_started

        def _wait_for_head(self) -> None:
            self._stop_waiting()
            self.since = self.loop.time()
            self._waiting = self.loop.call_later(limits.head_seconds, self.transport.abort)

        def _stop_waiting(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

    def _make_room(newest: LimitedProtocol) -> None:
        """End the connection that has been waited for longest; the newest one where every other is at work."""
        others = [
            one
            for one in newest.connections
            if isinstance(one, LimitedProtocol) and one is not newest and one.is_owed_nothing
        ]
        if others:
            longest = min(others, key=lambda one: one.since)
            newest.connections.discard(longest)
            longest.transport.abort()
        else:
            newest.transport.write(FULL)
            newest.transport.close()

    return LimitedProtocol
