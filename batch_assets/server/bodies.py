"""Which bodies the server waits for: those of an announced length, at most as long as their door takes."""

from collections.abc import Callable, Iterable

BODY_BYTES = 64 * 1024
"""Where no body is needed one is read all the same, so that another request can follow it."""
MANY_BYTES = 16 * 2**20
"""Of a body that holds many records."""
FILE_BYTES = 513 * 10**6
"""Of a form with a file: OpenAI's limit of a file, and what stands around it."""

Headers = Iterable[tuple[bytes, bytes]]
BodyLimit = Callable[[bytes, bytes, Headers], int]
"""The most bytes that a request may announce, by its method, its path without the query, and its headers."""


def short_bodies(_method: bytes, _path: bytes, _headers: Headers) -> int:
    """The limit where no door needs a body."""
    return BODY_BYTES


def is_encoded(headers: Headers) -> bool:
    """Whether the body comes by Transfer-Encoding: then nothing says how long it is, nor in how many pieces."""
    return any(name == b"transfer-encoding" for name, _ in headers)


def announced(headers: Headers) -> int:
    """Bytes of the body, as its headers say; 0 where they do not. The parser has refused what is no number."""
    return max((int(value) for name, value in headers if name == b"content-length"), default=0)
