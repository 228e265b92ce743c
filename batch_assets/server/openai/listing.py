"""Lists as OpenAI's clients page through them: `after` is the last id of the page before."""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from batch_assets.server.answers import Refused


def asked_number(request: Request, name: str, otherwise: int, most: int) -> int:
    """A number from 1 to `most` in the query. Raises Refused."""
    written = request.query_params.get(name)
    if written is None:
        return otherwise
    if not (written.isascii() and written.isdigit() and len(written) < 9 and 1 <= int(written) <= most):
        raise Refused(400, f"{name}: {written[:100]!r}: write a number from 1 to {most:,}", param=name)
    return int(written)


def page(found: Sequence[dict[str, Any]], most: int) -> dict[str, Any]:
    """A page of `most` objects, of one more where there is another page."""
    shown = list(found[:most])
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(found) > most,
    }
