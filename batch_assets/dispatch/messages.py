"""What a message of a queue says: which call is to be made, until when, and by what its result is found.

Two shapes are read: llm-d's first publication (flat, the deadline as text) and llm-d-async's envelope. A payload stays
as its producer wrote it, byte for byte. What becomes of a message is written in `results.py`.
"""

import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote

import msgspec

from batch_assets.dispatch.results import ResultShape

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
_PATHS = {"messages": CHAT, "prompt": COMPLETIONS, "input": EMBEDDINGS}
_PATH = re.compile(r"/(?!/)[^\s?#\\]*")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OURS = frozenset(
    {
        "connection", "content-encoding", "content-length", "content-type", "expect", "host", "keep-alive",
        "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
"""Headers that say how a call is sent: no message sets them."""


class InvalidMessage(Exception):
    """A message that no call can be made of; `shape` tells how it is answered, where it has an id."""

    def __init__(self, reason: str, shape: ResultShape | None = None) -> None:
        super().__init__(reason)
        self.shape = shape


@dataclass(frozen=True, slots=True)
class Message:
    """`deadline` is in Unix seconds, None where there is none; `token` tells it from another one of the same id."""

    id: str
    token: str
    shape: ResultShape
    deadline: float | None
    created: float | None
    path: str
    payload: bytes
    headers: dict[str, str]
    metadata: dict[str, Any]


class _Fields(msgspec.Struct):
    id: msgspec.Raw = msgspec.Raw()
    created: msgspec.Raw = msgspec.Raw()
    deadline: msgspec.Raw = msgspec.Raw()
    payload: msgspec.Raw = msgspec.Raw()
    metadata: msgspec.Raw = msgspec.Raw()
    headers: msgspec.Raw = msgspec.Raw()
    endpoint: msgspec.Raw = msgspec.Raw()


class _Envelope(_Fields):
    """Its own fields are those of a flat message, which has no `data`."""

    data: msgspec.Raw = msgspec.Raw()
    internal: msgspec.Raw = msgspec.Raw()


class _Internal(msgspec.Struct):
    request_token: str = ""


_envelopes = msgspec.json.Decoder(_Envelope)
_fields = msgspec.json.Decoder(_Fields)
_internals = msgspec.json.Decoder(_Internal)
_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])


def parse(body: bytes) -> Message:
    """Read one message. Raises InvalidMessage, with the shape of its answer where an id could be read."""
    try:
        body.decode()  # msgspec skips what nobody asked for, whatever its bytes are
        envelope = _envelopes.decode(body)
        is_envelope = bool(bytes(envelope.data))
        fields: _Fields = _fields.decode(envelope.data) if is_envelope else envelope
        token = _internals.decode(envelope.internal).request_token if bytes(envelope.internal) else ""
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(f"no JSON object of a request: {error}", _salvaged(body)) from None
    shape = ResultShape(_id_of(fields.id), _raw(fields.metadata), is_envelope)
    try:
        if "\0" in shape.id_text:
            raise InvalidMessage(f"id {_shown(fields.id)}: leave out the NUL, which no database takes")
        payload, keys = _payload(fields.payload)
        return Message(
            id=shape.id_text,
            token=token_of(shape.id_text, token, body),
            shape=shape,
            deadline=_seconds("deadline", fields.deadline),
            created=_created(fields.created),
            path=_path(fields.endpoint, keys),
            payload=payload,
            headers=_headers(fields.headers),
            metadata=_metadata(fields.metadata),
        )
    except InvalidMessage as error:
        raise InvalidMessage(str(error), shape) from None


def read_if_valid(body: bytes) -> Message | None:
    """The message, None where there is none in these bytes: whoever sends it on says why."""
    try:
        return parse(body)
    except InvalidMessage:
        return None


def token_of(message_id: str, request_token: str, body: bytes) -> str:
    """By what redeliveries are known: the id with the envelope's token, or with all bytes where it has none."""
    digest = hashlib.sha256(request_token.encode() or body)
    digest.update(b"\0" + message_id.encode(errors="surrogatepass"))
    return digest.hexdigest()[:32]


def _raw(value: msgspec.Raw) -> bytes:
    found = bytes(value)
    return b"" if found == b"null" else found


def _decoded(value: msgspec.Raw) -> Any:
    found = _raw(value)
    try:
        return msgspec.json.decode(found) if found else None
    except (msgspec.DecodeError, RecursionError) as error:  # such as a number that is too large
        raise InvalidMessage(f"{_shown(value)} cannot be read: {error}") from None


def _id_of(value: msgspec.Raw) -> bytes:
    found = _decoded(value)
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        raise InvalidMessage(f"id {_shown(value)}: write a text that names the request")
    return bytes(value)


def _seconds(name: str, value: msgspec.Raw) -> float | None:
    found = _decoded(value)
    if found is None or found == "":
        return None
    try:
        seconds = float(found) if not isinstance(found, bool | dict | list) else math.nan
    except (ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise InvalidMessage(f"{name} {_shown(value)}: write Unix seconds, as a number or as text")
    return seconds


def _created(value: msgspec.Raw) -> float | None:
    try:
        return _seconds("created", value)
    except InvalidMessage:
        return None  # for figures only


def _payload(value: msgspec.Raw) -> tuple[bytes, dict[str, msgspec.Raw]]:
    if not _raw(value):
        raise InvalidMessage("payload: there is none; write the body of the call there")
    try:
        keys = _objects.decode(value)
    except msgspec.ValidationError:
        raise InvalidMessage(f"payload {_shown(value)}: write a JSON object, the body of the call") from None
    if bytes(keys.get("stream", b"")) == b"true":
        raise InvalidMessage("payload.stream: a result is one whole answer; leave it out")
    return bytes(value), keys


def _path(endpoint: msgspec.Raw, keys: dict[str, msgspec.Raw]) -> str:
    found = _decoded(endpoint)
    if found is None or found == "":
        path = next((path for key, path in _PATHS.items() if key in keys), None)
        if path is None:
            raise InvalidMessage(
                f"payload has none of {', '.join(_PATHS)}, by which its path would be known; name it in endpoint"
            )
        return path
    if not isinstance(found, str) or not _PATH.fullmatch(found) or ".." in unquote(found).split("/"):
        raise InvalidMessage(
            f"endpoint {_shown(endpoint)}: write a path such as {CHAT}; the server is the worker's"
        )
    return found


def _headers(value: msgspec.Raw) -> dict[str, str]:
    found = _decoded(value)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidMessage(f"headers {_shown(value)}: write an object of texts")
    headers = cast("dict[str, Any]", found)
    for name, text in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not isinstance(text, str) or re.search(r"[\r\n\0]", text):
            raise InvalidMessage(f"headers {name!r}: it cannot be sent; write a name and a text of one line")
    return {name: text for name, text in headers.items() if name.lower() not in _OURS}


def _metadata(value: msgspec.Raw) -> dict[str, Any]:
    found = _decoded(value)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidMessage(f"metadata {_shown(value)}: write an object")
    return cast("dict[str, Any]", found)


def _shown(value: msgspec.Raw) -> str:
    text = bytes(value).decode(errors="replace") or "missing"
    return text if len(text) <= 80 else text[:80] + "…"


def _salvaged(body: bytes) -> ResultShape | None:
    """The id of a message that strict JSON does not take, such as one with NaN or half a surrogate pair."""
    try:
        found: Any = json.loads(body)
        is_envelope = isinstance(found, dict) and isinstance(found.get("data"), dict)  # pyright: ignore
        fields: Any = found["data"] if is_envelope else found
        message_id = fields["id"]
        if isinstance(message_id, bool) or not isinstance(message_id, str | int) or message_id == "":
            return None
        return ResultShape(json.dumps(message_id).encode(), b"", is_envelope)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
