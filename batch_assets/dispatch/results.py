"""What is put into the queue of results: one JSON object for each message that has an id.

An answer stands in it as the server wrote it: as JSON for a flat message, as text for an envelope, whose consumers
read it so.
"""

import codecs
import json
from dataclasses import dataclass
from enum import StrEnum

import msgspec


class ErrorCode(StrEnum):
    """Why a message has no answer, in llm-d's words."""

    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"
    INFERENCE_ERROR = "INFERENCE_ERROR"
    INVALID_REQUEST = "INVALID_REQUEST"


@dataclass(frozen=True, slots=True)
class ResultShape:
    """What a result takes from its message: `id_json` and `metadata` as they came."""

    id_json: bytes
    metadata: bytes
    is_envelope: bool

    @property
    def id_text(self) -> str:
        """The id, for people and for whoever cancels by it."""
        found = json.loads(self.id_json)  # which takes half a surrogate pair, too
        return found if isinstance(found, str) else str(found)

    def answer(self, status: int, body: bytes) -> bytes:
        """The result with what the server answered."""
        payload = _text(body) if self.is_envelope or not _is_json(body) else body
        return self._object([(b"payload", payload), (b"status_code", str(status).encode())])

    def error(self, code: ErrorCode, message: str, status: int | None = None, body: bytes = b"") -> bytes:
        """The result of a message that has come to nothing; `status` and `body` where a server has answered."""
        fields = [] if status is None else [(b"status_code", str(status).encode())]
        if self.is_envelope:
            payload = body if status is not None else msgspec.json.encode({"error": message})
            fields.append((b"payload", _text(payload)))
        else:
            fields.append((b"error", _quoted(message)))
        fields += [(b"error_code", _quoted(code.value)), (b"error_message", _quoted(message))]
        return self._object(fields)

    def _object(self, fields: list[tuple[bytes, bytes]]) -> bytes:
        if self.metadata:
            fields.append((b"metadata", self.metadata))
        return b'{"id":' + self.id_json + b"".join(b',"%s":%s' % field for field in fields) + b"}"


def _quoted(text: str) -> bytes:
    return msgspec.json.encode(text.encode(errors="replace").decode())


def _text(body: bytes) -> bytes:
    return msgspec.json.encode(body.decode(errors="replace"))


def _is_json(body: bytes) -> bool:
    try:
        body.decode()  # msgspec skips what nobody asked for, whatever its bytes are
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return not body.startswith(codecs.BOM_UTF8)
