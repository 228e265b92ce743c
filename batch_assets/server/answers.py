"""How the doors answer: JSON, and errors as `{"detail": …}`, or under /v1 as OpenAI's clients read them."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from batch_assets.errors import BatchAssetsError
from batch_assets.plain_text import plain_text

AWAY_SECONDS = 2
OPENAI = "/v1/"
"""What the paths of OpenAI's API begin with."""


class Refused(Exception):
    """A request is not carried out; `status` is HTTP's, and the reason what the client reads.

    `code` and `param` are OpenAI's: what is wrong in a word, and with which field.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        headers: Mapping[str, str] | None = None,
        *,
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = dict(headers or {})
        self.code = code
        self.param = param


def error_body(
    path: str, status: int, reason: str, *, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """What is told of an error at a path."""
    if not path.startswith(OPENAI):
        return {"detail": reason}
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
        status, "invalid_request_error" if status < 500 else "server_error"
    )
    return {"error": {"message": reason, "type": kind, "param": param, "code": code}}


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(value), status, dict(headers or {}), "application/json")


def refusal(request: Request, error: Exception) -> Response:
    """What a client is told of a Refused."""
    assert isinstance(error, Refused)
    told = error_body(
        request.url.path, error.status, plain_text(str(error)), code=error.code, param=error.param
    )
    return answer(told, error.status, error.headers)


def no_such_door(request: Request, error: Exception) -> Response:
    """What a client is told of a path, or a method, that there is not."""
    assert isinstance(error, HTTPException)
    return answer(
        error_body(request.url.path, error.status_code, error.detail), error.status_code, error.headers
    )


def job_url(request: Request, job_id: str) -> str:
    """Where a job is asked for, by the address that the client itself used."""
    return f"{request.base_url}job/{job_id}"


def away(request: Request, error: Exception) -> Response:
    """What is answered where the database or a store is away for the moment, or what it holds is damaged."""
    assert isinstance(error, BatchAssetsError)
    told = error_body(request.url.path, 503, f"cannot be told now: {error}")
    return answer(told, 503, {"Retry-After": str(AWAY_SECONDS)})
