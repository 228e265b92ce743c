"""How the doors of requests answer: JSON, and errors as `{"detail": …}`."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from batch_assets.errors import BatchAssetsError
from batch_assets.plain_text import plain_text

AWAY_SECONDS = 2


class Refused(Exception):
    """A request is not carried out; `status` is HTTP's, and the reason what the client reads."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = dict(headers or {})


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(value), status, dict(headers or {}), "application/json")


def refusal(_: Request, error: Exception) -> Response:
    """What a client is told of a Refused."""
    assert isinstance(error, Refused)
    return answer({"detail": plain_text(str(error))}, error.status, error.headers)


def job_url(request: Request, job_id: str) -> str:
    """Where a job is asked for, by the address that the client itself used."""
    return f"{request.base_url}job/{job_id}"


def away(_: Request, error: Exception) -> Response:
    """What is answered where the database or a store is away for the moment, or what it holds is damaged."""
    assert isinstance(error, BatchAssetsError)
    return answer({"detail": f"cannot be told now: {error}"}, 503, {"Retry-After": str(AWAY_SECONDS)})
