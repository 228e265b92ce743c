"""The HTTP app: takes orders to start pipelines down in the ledger, and tells what has become of them.

Who may ask is the gate's business, carrying orders out the starter's.
"""

import datetime
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.exceptions import HTTPException as StarletteHTTPException

from batch_assets.components.declared import Declared
from batch_assets.errors import BatchAssetsError
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.triggers import TriggerRow
from batch_assets.plain_text import plain_text
from batch_assets.server.answers import Refused, away, no_such_door, refusal
from batch_assets.server.keys import given_key
from batch_assets.server.tokens import OPERATOR

if TYPE_CHECKING:
    from fastapi import FastAPI


def create_application(
    ledger: Ledger, pipelines: Callable[[], Declared], ordered: Callable[[], None]
) -> "FastAPI":
    """The app. `pipelines` gives those that may be started, `ordered` is called after an order.

    For one that cannot be loaded it answers 503, and the next request asks again.
    """
    from fastapi import FastAPI, HTTPException, Request
    from fastapi.responses import JSONResponse

    # No pages of documentation, which would be loaded from elsewhere; the document itself is behind the token.
    application = FastAPI(title="Batch Assets", docs_url=None, redoc_url=None)
    application.add_exception_handler(Refused, refusal)
    application.add_exception_handler(BatchAssetsError, away)
    application.add_exception_handler(StarletteHTTPException, no_such_door)

    def demand_operator(request: Request) -> None:
        if request.scope.get("state", {}).get("tenant", OPERATOR) != OPERATOR:
            raise HTTPException(403, "pipelines are started by the operator's token alone")

    def shown(row: TriggerRow, request: Request) -> dict[str, Any]:
        path = f"trigger/{row.pipeline}/{quote(row.key, safe='')}"
        return {
            "pipeline": row.pipeline,
            "key": row.key,
            "state": row.state.value,
            "created_at": _time(row.at),
            "url": f"{request.base_url}{path}",
        }

    @application.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    # A plain function: it runs in a thread, since the ledger's calls wait.
    @application.post("/trigger/{pipeline}")
    def start(pipeline: str, request: Request) -> JSONResponse:
        demand_operator(request)
        key = given_key(request) or secrets.token_hex(16)
        declared = pipelines()
        if (broken := declared.why_broken(pipeline)) is not None:
            raise HTTPException(503, plain_text(broken))
        if pipeline not in declared.pipelines:
            known = ", ".join(sorted(declared.pipelines))
            raise HTTPException(404, f"there is no pipeline {pipeline!r} (known: {known})")
        row, created = ledger.open_trigger(pipeline, key, "webhook")
        if created:
            ordered()
        answer = shown(row, request)
        return JSONResponse(answer, 202 if created else 200, headers={"Location": answer["url"]})

    # A key may hold slashes.
    @application.get("/trigger/{pipeline}/{key:path}")
    def state(pipeline: str, key: str, request: Request) -> dict[str, Any]:
        demand_operator(request)
        row = ledger.trigger(pipeline, key)
        if row is None:
            raise HTTPException(404, f"pipeline {pipeline!r} has no order with the key {key!r}")
        return shown(row, request) | {
            "updated_at": _time(row.updated_at),
            # It quotes what the run said, file names and records included.
            "message": None if row.message is None else plain_text(row.message),
        }

    return application


def _time(seconds: float) -> str:
    """ISO 8601, UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
