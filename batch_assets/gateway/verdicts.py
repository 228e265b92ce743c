"""What an answer's status says: whether the work is done, may be done another time, or never.

What a good answer holds is judged by whoever has asked.
"""

import email.utils
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

import orjson

from batch_assets.gateway.client import Answer

DROPPED = "x-llm-d-request-dropped-reason"
"""Header of llm-d's gateway: why it has not let a call through to a model."""
_MOST_CHARACTERS = 300


class Verdict(StrEnum):
    """What is to be done about a call that has been answered."""

    DONE = "done"
    REFUSED = "refused"  # the server has no room now: 429, 503, or dropped by a gateway
    BROKEN = "broken"  # the server failed at it, and may not the next time
    WRONG = "wrong"  # the same call would be answered the same


@dataclass(frozen=True)
class Judgement:
    """`code` and `message` are the server's own where it has said any; `pause` is its Retry-After, in seconds."""

    verdict: Verdict
    status: int = 200
    code: str = ""
    message: str = ""
    pause: float | None = None

    @property
    def text(self) -> str:
        """For a person: what the server said."""
        told = f"status {self.status}"
        if self.code and self.code != str(self.status):
            told += f", {self.code}"
        return f"{told}: {self.message}" if self.message else told


def judge(answer: Answer) -> Judgement:
    """Judge by status, headers and an `error` in the body, which some servers send with a status of 200."""
    status = answer.status
    if status == 200:
        # A look at the beginning is enough: a whole answer is parsed once only, by whoever has asked for it.
        if not answer.body[:200].lstrip().startswith(b'{"error"'):
            return DONE
        code, message, number = error_of(answer.body)
        status = number if number is not None and 400 <= number < 600 else 500
    else:
        code, message, _ = error_of(answer.body)
    return Judgement(_verdict(status, answer.headers), status, code, message, retry_after(answer.headers))


def _verdict(status: int, headers: Mapping[str, str]) -> Verdict:
    if status in (429, 503) or DROPPED in headers:
        return Verdict.REFUSED
    if status in (408, 409, 425) or status >= 500 or 200 <= status < 300:
        return Verdict.BROKEN  # 202 and 204 hold no answer
    return Verdict.WRONG


def error_of(body: bytes) -> tuple[str, str, int | None]:
    """Code, message and numeric code of an error: OpenAI's shape, FastAPI's `detail`, or the beginning of any text."""
    try:
        content: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", _beginning(body.decode(errors="replace")), None
    if isinstance(content, dict):
        fields = cast("dict[str, Any]", content)
        error = fields.get("error", fields)
        if isinstance(error, dict):
            error = cast("dict[str, Any]", error)
            code = error.get("code")
            message = error.get("message") or error.get("detail") or error.get("type") or ""
            number = code if isinstance(code, int) else None
            return str(code or error.get("type") or ""), _beginning(message), number
        return "", _beginning(error), None
    return "", _beginning(content), None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds until the server wants to be asked again: Retry-After as a number or a date, or retry-after-ms."""
    try:
        if "retry-after-ms" in headers:
            return max(float(headers["retry-after-ms"]) / 1000, 0.0)
        value = headers.get("Retry-After")
        if value is None:
            return None
        if value.strip().replace(".", "", 1).isdigit():
            return float(value)
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def _beginning(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + "…"


DONE = Judgement(Verdict.DONE)
