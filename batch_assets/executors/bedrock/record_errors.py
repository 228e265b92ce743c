"""What a record's error means: try again, send a shorter text, or give the record up."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batch_assets.embeddings.reason_codes import EXPIRED, SERVICE, TOO_LONG
from batch_assets.executors.aws.passing import is_passing, is_passing_code

# Seen: "Too many input tokens. Max input tokens: 8192, request input token count: 9001",
# "expected maxLength: 50000, actual: 50001", "Input is too long for requested model".
_TOO_LONG_WORDS = re.compile(
    r"too many (input )?tokens|too long|maxLength|maximum (context|input|prompt|text)? ?(length|tokens)"
    r"|max(imum)? input tokens|exceeds?\b.{0,60}\b(tokens|characters|length|context)"
    r"|(tokens|characters|length|context)\b.{0,60}\bexceed",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Verdict:
    """`final` says that the record has failed for good; otherwise it goes again."""

    final: bool
    code: str
    message: str


def judge(error: Any, truncate: bool) -> Verdict:
    """Sort an `error` of a result line, or one like it. `truncate`: too long a text is sent shorter.

    What the service says nothing usable of goes again: attempts are bounded, lost records are not.
    """
    fields: Mapping[str, Any] = error if isinstance(error, Mapping) else {"errorMessage": error}
    told, message = fields.get("errorCode"), fields.get("errorMessage")
    message = "" if message is None else str(message)
    name = "" if told is None else str(told).strip()
    number = int(name) if re.fullmatch(r"[0-9]{3}", name) else 0
    code = SERVICE + (re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:60] or "error")
    if fields.get("expired") is True:
        return Verdict(False, EXPIRED, message or "the job ended before this record's turn")
    client_fault = 400 <= number < 500 or (not number and "validation" in name.lower())
    passes = is_passing_code(name)
    if client_fault and not passes and _TOO_LONG_WORDS.search(message):
        return Verdict(not truncate, TOO_LONG, message)
    if fields.get("retryable") is True or passes or is_passing(message):
        return Verdict(False, code, message)
    return Verdict(client_fault or bool(re.search(r"denied|notfound", name, re.IGNORECASE)), code, message)
