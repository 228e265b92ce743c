"""`POST /job` and `POST /jobs`: records taken, each durable before it is answered."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from batch_assets.requests.bodies import UnsupportedType, digest_of
from batch_assets.requests.database import DatabaseAway
from batch_assets.requests.group_commit import GroupCommit
from batch_assets.requests.store import Accepted, NewRequest, RequestStore, new_id
from batch_assets.server.answers import Refused, answer, job_url
from batch_assets.server.keys import HEADER, MOST_CHARACTERS, given_key
from batch_assets.server.open_requests import NoRoom, OpenRequests
from batch_assets.server.pipelines import RequestPipeline, RequestPipelines, Unusable
from batch_assets.server.webhooks import HEADER as WEBHOOK_HEADER
from batch_assets.server.webhooks import MOST_CHARACTERS as MOST_URL_CHARACTERS
from batch_assets.sources.base import Fault
from batch_assets.sources.lines import BYTE_ORDER_MARK

if TYPE_CHECKING:
    from fastapi import FastAPI

AWAY_SECONDS = 2
RESOLVED_AT_ONCE = 8
JSON_LINES = ("application/x-ndjson", "application/jsonl", "application/json", "text/plain")
RECORD = {"type": "object", "description": "The record's columns.", "additionalProperties": True}


class Accepting:
    """Takes records for the pipelines of one deployment."""

    def __init__(
        self,
        pipelines: RequestPipelines,
        commits: GroupCommit,
        store: RequestStore,
        opened: OpenRequests,
        why_no_webhook: Callable[[str, str], str | None],
    ) -> None:
        """`why_no_webhook` tells, of where a URL is named and the URL, why it cannot hear of an end."""
        self._pipelines = pipelines
        self._why_no_webhook = why_no_webhook
        self._resolving = ThreadPoolExecutor(RESOLVED_AT_ONCE, thread_name_prefix="resolving")
        self._commits = commits
        self._store = store
        self._opened = opened

    async def one(self, request: Request) -> Response:
        """A record is a JSON object of columns, or plain text."""
        pipeline = await self._pipeline(request)
        key, tenant = given_key(request), request.state.tenant
        body, kind = await request.body(), request.headers.get("content-type")
        if len(body) > pipeline.rules.max_body_bytes:
            raise Refused(
                413, f"a body of {len(body):,} bytes; max_body_bytes is {pipeline.rules.max_body_bytes:,}"
            )
        _refuse_encoded(request)
        try:
            line = pipeline.bodies.read(body, kind)
        except UnsupportedType as error:
            raise Refused(415, f"Content-Type {error}") from None
        if isinstance(line, Fault):
            raise Refused(422, f"{line.code}: {line.message}")
        webhook = await self._webhook(request)
        new = NewRequest(new_id(), pipeline.name, tenant, line, digest_of(body, kind), key, webhook)
        [made] = await self._accept(pipeline, [new])
        if not made.same_body:
            raise Refused(422, f"{HEADER}: {key!r} came before with another body, as job {made.id}")
        url = job_url(request, made.id)
        told = {"job_id": made.id, "status": "queued", "url": url}
        return answer(told, 202 if made.is_new else 200, {"Location": url})

    async def many(self, request: Request) -> Response:
        """JSON lines, a record each. A line that cannot be taken costs itself."""
        pipeline = await self._pipeline(request)
        key, tenant = given_key(request), request.state.tenant
        kind = (request.headers.get("content-type") or JSON_LINES[0]).split(";")[0].strip().lower()
        if kind not in (*JSON_LINES, "application/x-www-form-urlencoded"):
            raise Refused(415, f"Content-Type {kind!r}: send {JSON_LINES[0]}, a JSON object a line")
        _refuse_encoded(request)
        if WEBHOOK_HEADER in request.headers:
            raise Refused(422, f"{WEBHOOK_HEADER}: only a record of its own (POST /job) has its end told")
        told: list[dict[str, Any]] = []
        new: list[NewRequest] = []
        body = (await request.body()).removeprefix(BYTE_ORDER_MARK)
        for number, line in enumerate(body.split(b"\n"), start=1):
            if not line or line.isspace():
                continue
            found = self._line(pipeline, line)
            if isinstance(found, Fault):
                told.append({"line": number, "error": {"code": found.code, "message": found.message}})
                continue
            # A retry of all the lines makes none of them twice.
            own = None if key is None else f"{key}:{number}"
            new.append(NewRequest(new_id(), pipeline.name, tenant, found, digest_of(line, None), own))
            told.append({"line": number})
        if not told:
            raise Refused(422, "empty: the body has no line; send a JSON object a line")
        if new:
            made = iter(await self._accept(pipeline, new))
            for one in told:
                if "error" not in one:
                    _tell(one, next(made))
        return answer({"jobs": told}, 202)

    def _line(self, pipeline: RequestPipeline, line: bytes) -> bytes | Fault:
        if len(line) > pipeline.rules.max_body_bytes:
            return Fault(
                "too_large", f"{len(line):,} bytes; max_body_bytes is {pipeline.rules.max_body_bytes:,}"
            )
        return pipeline.bodies.read_object(line)

    async def _webhook(self, request: Request) -> str | None:
        """The URL that is to hear of the request's end."""
        urls = request.headers.getlist(WEBHOOK_HEADER)
        if not urls:
            return None
        if len(urls) > 1:
            raise Refused(422, f"{WEBHOOK_HEADER}: name it once")
        # Names are resolved by a few threads of their own: a slow one is waited for by those with webhooks alone.
        loop = asyncio.get_running_loop()
        reason = await loop.run_in_executor(self._resolving, self._why_no_webhook, WEBHOOK_HEADER, urls[0])
        if reason is not None:
            raise Refused(422, reason)
        return urls[0]

    async def _pipeline(self, request: Request) -> RequestPipeline:
        names = request.query_params.getlist("pipeline")
        if len(names) > 1:
            raise Refused(422, "pipeline: name it once")
        try:
            return self._pipelines.meant(names[0] if names else None)
        except Unusable as error:
            raise Refused(error.status, str(error)) from None

    async def _accept(self, pipeline: RequestPipeline, new: list[NewRequest]) -> list[Accepted]:
        """Have requests of one tenant accepted, all or none. Raises Refused."""
        tenant = new[0].tenant
        if len(new) > pipeline.rules.max_open:
            raise Refused(
                413, f"{len(new):,} records; max_open is {pipeline.rules.max_open:,}, so send fewer at once"
            )
        try:
            if (full := await self._no_room(pipeline, tenant, len(new))) is not None:
                # Whoever asks again for what was accepted is told so, however many there are now.
                if not await run_in_threadpool(self._store.all_known, new):
                    raise Refused(429, full.reason, {"Retry-After": str(full.retry_seconds)})
                return await self._commits.accept(new)
            # Counted before they are there: requests that come together do not all pass for the last one.
            with self._opened.accepting(pipeline, tenant, len(new)) as accepted:
                made = await self._commits.accept(new)
                accepted(sum(one.is_new for one in made))
                return made
        except DatabaseAway as error:
            raise Refused(
                503, f"nothing is accepted now: {error}", {"Retry-After": str(AWAY_SECONDS)}
            ) from error

    async def _no_room(self, pipeline: RequestPipeline, tenant: str, requests: int) -> NoRoom | None:
        if self._opened.is_due(pipeline) or self._opened.no_room(pipeline, tenant, requests):
            await run_in_threadpool(self._opened.count, pipeline)
        return self._opened.no_room(pipeline, tenant, requests)


def _tell(one: dict[str, Any], made: Accepted) -> None:
    if made.same_body:
        one["job_id"] = made.id
    else:
        message = f"the key came before with another line, as job {made.id}"
        one["error"] = {"code": "idempotency_key_reused", "message": message}


def _refuse_encoded(request: Request) -> None:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "Content-Encoding: send the body as it is")


def add_accepting(application: "FastAPI", accepting: Accepting) -> None:
    """The two doors."""
    name = {"name": "pipeline", "in": "query", "required": False, "schema": {"type": "string"}}
    key = {
        "name": HEADER,
        "in": "header",
        "required": False,
        "schema": {"type": "string", "maxLength": MOST_CHARACTERS},
    }
    webhook = {
        "name": WEBHOOK_HEADER,
        "in": "header",
        "required": False,
        "schema": {"type": "string", "maxLength": MOST_URL_CHARACTERS},
    }
    one: dict[str, Any] = {
        "application/json": {"schema": RECORD},
        "text/plain": {"schema": {"type": "string"}},
    }
    many: dict[str, Any] = {kind: {"schema": {"type": "string"}} for kind in (JSON_LINES[0], "text/plain")}
    # Plain routes answer; FastAPI's own, which cost a quarter of all time, are what the OpenAPI document shows.
    application.add_route("/job", accepting.one, methods=["POST"], include_in_schema=False)
    application.add_route("/jobs", accepting.many, methods=["POST"], include_in_schema=False)
    application.add_api_route(
        "/job", accepting.one, methods=["POST"], status_code=202, response_class=Response,
        openapi_extra={"parameters": [name, key, webhook], "requestBody": {"required": True, "content": one}},
    )  # fmt: skip
    application.add_api_route(
        "/jobs", accepting.many, methods=["POST"], status_code=202, response_class=Response,
        openapi_extra={"parameters": [name, key], "requestBody": {"required": True, "content": many}},
    )  # fmt: skip
