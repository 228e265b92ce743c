"""What the server grants each connection; who keeps to it is `connections` and, for bodies, `gate`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """How many connections there may be, and how long each part of a request may take, in seconds."""

    connections: int = 200
    head_seconds: float = 10.0
    """From the connection, or the answer before, to the last line of the headers."""
    body_seconds: float = 30.0
    """From there to the end of the body."""
    answer_seconds: float = 30.0
    """How long a client may leave what it is sent unread, once the network holds no more of it."""
