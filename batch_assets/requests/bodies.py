"""What comes over HTTP as one record: checked as the source's reader will check it, and kept as one line of JSON.

Nothing is parsed and written anew, so that what a client sent stays as it was, integers of any length among it.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import orjson

from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.settings.source import JOB_ID
from batch_assets.sources.base import Fault
from batch_assets.sources.json_values import long_number_lines, parse_object
from batch_assets.sources.lines import BYTE_ORDER_MARK
from batch_assets.sources.texts import TextRule

TENANT, ARRIVAL = "tenant", "arrival_time"
OWN_COLUMNS = (JOB_ID, TENANT, ARRIVAL)
"""The columns that a sealed window has beside the client's own."""
OWN_BYTES = 512
"""At most what they take of a line."""
_JSON, _TEXT = "application/json", "text/plain"
_CHARSET = re.compile(r'charset\s*=\s*"?([^";\s]+)', re.IGNORECASE)


class UnsupportedType(Exception):
    """The body is of a type that no record comes in."""


class BodyRules:
    """What a pipeline asks of a request's body."""

    def __init__(self, settings: PipelineSettings) -> None:
        source = settings.source
        template = source.text_template
        self._longest = settings.shards.max_record_bytes - OWN_BYTES
        self._text = TextRule(None if template is not None else source.text_columns[0], template)
        self._of_images = source.images
        self._image_column = source.image_column

    def read(self, body: bytes, content_type: str | None) -> bytes | Fault:
        """The record as a JSON object in one line, or why it would be rejected. Raises UnsupportedType."""
        kind = (content_type or _JSON).split(";")[0].strip().lower()
        if kind == _TEXT:
            charset = _CHARSET.search(content_type or "")
            if charset is not None and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
                raise UnsupportedType(f"charset {charset[1]!r}: send UTF-8")
            return self.read_text(body)
        # What curl says where nobody told it otherwise.
        if kind not in (_JSON, "application/x-www-form-urlencoded"):
            raise UnsupportedType(f"{kind!r}: send {_JSON}, or {_TEXT}")
        return self.read_object(body)

    def read_text(self, body: bytes) -> bytes | Fault:
        """The text as the only column."""
        if len(self._text.columns) != 1 or self._of_images:
            named = ", ".join(self._text.columns)
            raise UnsupportedType(
                f"{_TEXT}: a record of this pipeline has several columns ({named}); send {_JSON}"
            )
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            return Fault("invalid_utf8", f"byte {error.start} of the body is no UTF-8 ({error.reason})")
        line = orjson.dumps({self._text.columns[0]: text})
        return self._checked(line, {self._text.columns[0]: text})

    def read_object(self, body: bytes) -> bytes | Fault:
        """The JSON object. Line breaks stand between its parts only, where a blank means the same."""
        line = body.removeprefix(BYTE_ORDER_MARK).replace(b"\n", b" ").strip()
        found = parse_object(line, self._longest, long_number_lines(line))
        if isinstance(found, Fault):
            return Fault(found.code, found.message.replace("the line", "the body", 1))
        return self._checked(line, found)

    def _checked(self, line: bytes, record: Mapping[str, Any]) -> bytes | Fault:
        if own := [name for name in OWN_COLUMNS if name in record]:
            return Fault("reserved_column", f"column {own[0]!r} is the server's own; call yours otherwise")
        if self._image_column is not None and not isinstance(record.get(self._image_column), str):
            return Fault(
                "no_image", f"column {self._image_column!r} is to say where the image is, as a string"
            )
        text = self._text(record)
        if isinstance(text, Fault) and not self._of_images:
            return text
        return line


def digest_of(body: bytes, content_type: str | None) -> bytes:
    """By which a body is known again: 16 bytes."""
    kind = (content_type or _JSON).split(";")[0].strip().lower()
    return hashlib.sha256(kind.encode() + b"\0" + body).digest()[:16]


def window_line(body: bytes, job_id: str, tenant: str, arrived: str) -> bytes:
    """A line of a sealed window: the record with whose it is in front."""
    own = orjson.dumps({JOB_ID: job_id, TENANT: tenant, ARRIVAL: arrived})
    return own[:-1] + b"," + body[1:] + b"\n"
