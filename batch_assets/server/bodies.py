"""Which bodies the server waits for. No door needs one, so only a short one of an announced length is read at all."""

from collections.abc import Iterable

BODY_BYTES = 64 * 1024

Headers = Iterable[tuple[bytes, bytes]]


def is_encoded(headers: Headers) -> bool:
    """Whether the body comes by Transfer-Encoding: then nothing says how long it is, nor in how many pieces."""
    return any(name == b"transfer-encoding" for name, _ in headers)


def announced(headers: Headers) -> int:
    """Bytes of the body, as its headers say; 0 where they do not. The parser has refused what is no number."""
    return max((int(value) for name, value in headers if name == b"content-length"), default=0)
