"""Parsing requests at a cost that does not depend on how many pieces their bodies come in.

h11 makes an event of every chunk and of every packet, in the thread that serves everybody.
"""

import math
from collections.abc import Callable

import h11

from batch_assets.server.bodies import BodyLimit, announced, is_encoded, short_bodies


class Parser(h11.Connection):
    """Gives a body within its limit as one event, once all of it is there; of any other nothing, nor keeps it."""

    limit: BodyLimit = staticmethod(short_bodies)
    is_streamed: Callable[[bytes, bytes], bool] = staticmethod(lambda _method, _path: False)
    """Whether a body is given as it comes, by the method and the path of its request."""

    is_dropping = False
    """Whether what comes now belongs to a body that is refused: such a connection has no further request."""
    dropped = 0
    expected: float = math.inf
    """Bytes of that body, where its head says how many."""
    _missing = 0

    def receive_data(self, data: bytes) -> None:
        if self.is_dropping:
            self.dropped += len(data)
        else:
            self._missing -= len(data)
            super().receive_data(data)

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        if self.is_dropping or self._missing > 0:
            return h11.NEED_DATA
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._begin(event)
        return event

    def _begin(self, request: h11.Request) -> None:
        headers = [(bytes(name), bytes(value)) for name, value in request.headers]
        here = len(self.trailing_data[0])
        size = announced(headers)
        method, path = bytes(request.method), bytes(request.target).partition(b"?")[0]
        most = self.limit(method, path, headers)
        if is_encoded(headers) or size > most:
            self.is_dropping = True
            self.dropped = here
            self.expected = math.inf if is_encoded(headers) else size
        elif not self.is_streamed(method, path):
            self._missing = size - here
