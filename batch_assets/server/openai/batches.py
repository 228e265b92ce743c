"""`/v1/batches`: a client's file of calls, done by the pipeline that its first usable line names.

The batch is on disk before it is answered; the pipeline's own process takes it from there (`control/batch_taking.py`).
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from batch_assets.requests.batches.files import INPUT, StoredFile
from batch_assets.requests.batches.lines import ENDPOINTS, model_of, read_lines
from batch_assets.requests.batches.store import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    EXPIRED,
    FAILED,
    IN_PROGRESS,
    VALIDATING,
    Batch,
    BatchStore,
    NewBatch,
)
from batch_assets.server.answers import Refused, answer
from batch_assets.server.jobs import shown_tenant
from batch_assets.server.open_requests import OpenRequests
from batch_assets.server.openai.files import LONGEST_KEPT, SHORTEST_KEPT, Files
from batch_assets.server.openai.listing import asked_number, page
from batch_assets.server.openai.models import pipeline_of
from batch_assets.server.pipelines import RequestPipeline, RequestPipelines
from batch_assets.storage import open_storage

if TYPE_CHECKING:
    from fastapi import FastAPI

LISTED, MOST_LISTED = 20, 100
MOST_METADATA, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512
"""OpenAI's limits of a batch's metadata."""
WEBHOOK = "webhook"
"""The key of a batch's metadata whose URL is told of its end."""
RETRY_HEADER = "x-stainless-retry-count"
"""By which OpenAI's clients say that they have asked before, and had no answer."""
_WINDOW = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Batches:
    """The batches of one deployment."""

    def __init__(
        self,
        pipelines: RequestPipelines,
        files: Files,
        store: BatchStore,
        opened: OpenRequests,
        why_no_webhook: Callable[[str, str], str | None],
    ) -> None:
        """`why_no_webhook` tells, of where a URL is named and the URL, why it cannot hear of an end."""
        self._pipelines = pipelines
        self._files = files
        self._store = store
        self._opened = opened
        self._why_no_webhook = why_no_webhook

    async def create(self, request: Request) -> Response:
        """Take a batch."""
        body = await request.body()
        return await run_in_threadpool(self._create, request, body)

    def _create(self, request: Request, body: bytes) -> Response:
        asked = _object(body)
        endpoint, window = asked.get("endpoint"), asked.get("completion_window")
        if endpoint not in ENDPOINTS:
            told = f"endpoint: {str(endpoint)[:100]!r}: one of {', '.join(ENDPOINTS)}"
            raise Refused(400, told, param="endpoint")
        found = _WINDOW.fullmatch(window) if isinstance(window, str) else None
        if found is None or not int(found[1]):
            told = f"completion_window: {str(window)[:100]!r}: write a time such as 24h, 90m or 7d"
            raise Refused(400, told, param="completion_window")
        metadata, kept = _metadata(asked.get("metadata")), _kept(asked.get("output_expires_after"))
        file = self._input(asked.get("input_file_id"), request)
        webhook = self._webhook(metadata)
        pipeline = self._pipeline_of(file, endpoint)
        is_repeated = request.headers.get(RETRY_HEADER, "0").strip() not in ("", "0")
        if not is_repeated:
            self._demand_room(pipeline, request.state.tenant, file.lines)
        new = NewBatch(
            request.state.tenant,
            pipeline.name,
            endpoint,
            file.id,
            found[0],
            int(found[1]) * _UNITS[found[2]],
            pipeline.rules.keep.total_seconds() if kept is None else kept,
            metadata,
            webhook,
        )
        return answer(shown(self._store.create(new, is_repeated=is_repeated)))

    def _input(self, file_id: Any, request: Request) -> StoredFile:
        try:
            file = self._files.find(str(file_id), request)
        except Refused as error:
            raise Refused(400, f"input_file_id: {error}", param="input_file_id") from None
        if file.purpose != INPUT:
            told = f"input_file_id: file {file.id} is for {file.purpose!r}, and not for {INPUT!r}"
            raise Refused(400, told, param="input_file_id")
        return file

    def _webhook(self, metadata: Mapping[str, str] | None) -> str | None:
        """The URL that is to hear of the batch's end."""
        url = (metadata or {}).get(WEBHOOK)
        reason = None if url is None else self._why_no_webhook(f"metadata: {WEBHOOK}", url)
        if reason is not None:
            raise Refused(400, reason, param="metadata")
        return url

    def _pipeline_of(self, file: StoredFile, endpoint: str) -> RequestPipeline:
        """The pipeline of the first line that names one which answers the endpoint; with no such line, any."""
        pipelines = self._pipelines.all()
        if not pipelines:
            raise Refused(404, "no pipeline takes requests", code="model_not_found")
        for line in read_lines(open_storage(file.root).stream(file.path)):
            named = None if line.data is None else pipeline_of(pipelines, model_of(line.data), endpoint)
            if named is not None:
                return named
        return pipelines[min(pipelines)]

    def _demand_room(self, pipeline: RequestPipeline, tenant: str, lines: int) -> None:
        if lines > pipeline.rules.max_open:
            raise Refused(
                413,
                f"{lines:,} requests; max_open of pipeline {pipeline.name} is {pipeline.rules.max_open:,}",
            )
        if self._opened.is_due(pipeline) or self._opened.no_room(pipeline, tenant, lines):
            self._opened.count(pipeline)
        if (full := self._opened.no_room(pipeline, tenant, lines)) is not None:
            raise Refused(429, full.reason, {"Retry-After": str(full.retry_seconds)})

    def retrieve(self, batch_id: str, request: Request) -> Response:
        """One batch."""
        return answer(shown(self._find(batch_id, request)))

    def cancel(self, batch_id: str, request: Request) -> Response:
        """Cancel a batch; what has ended of it by then is in its output file."""
        batch = self._find(batch_id, request)
        while batch.status in (VALIDATING, IN_PROGRESS) and not self._store.move(batch, CANCELLING):
            batch = self._find(batch_id, request)
        batch = self._find(batch_id, request)
        if batch.status not in (CANCELLING, CANCELLED):
            raise Refused(409, f"batch {batch.id} is {batch.status}, and cannot be cancelled any more")
        return answer(shown(batch))

    def listed(self, request: Request) -> Response:
        """Batches, newest first."""
        most = asked_number(request, "limit", LISTED, MOST_LISTED)
        after = request.query_params.get("after")
        before = None if after is None else self._find(after, request).number
        found = self._store.newest(shown_tenant(request), before, most + 1)
        return answer(page([shown(one) for one in found], most))

    def _find(self, batch_id: str, request: Request) -> Batch:
        found = self._store.find(batch_id) if "\0" not in batch_id else None
        if found is None or shown_tenant(request) not in (None, found.tenant):
            raise Refused(404, f"there is no batch {batch_id[:100]!r}", param="batch_id")
        return found


def shown(batch: Batch) -> dict[str, Any]:
    """A batch as clients see it."""
    errors = None if batch.errors is None else {"object": "list", "data": orjson.loads(batch.errors)}
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": errors,
        "input_file_id": batch.input_file,
        "completion_window": batch.completion_window,
        "status": batch.status,
        "output_file_id": batch.output_file,
        "error_file_id": batch.error_file,
        "created_at": int(batch.created),
        "in_progress_at": _second(batch.in_progress_at),
        "expires_at": int(batch.expires),
        "finalizing_at": _second(batch.finalizing_at),
        "completed_at": _ended(batch, COMPLETED),
        "failed_at": _ended(batch, FAILED),
        "expired_at": _ended(batch, EXPIRED),
        "cancelling_at": _second(batch.cancelling_at),
        "cancelled_at": _ended(batch, CANCELLED),
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "usage": {
            "input_tokens": batch.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": batch.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": batch.input_tokens + batch.output_tokens,
        },
        "metadata": orjson.loads(batch.metadata),
    }


def _second(moment: float | None) -> int | None:
    return None if moment is None else int(moment)


def _ended(batch: Batch, status: str) -> int | None:
    return _second(batch.ended_at) if batch.status == status else None


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise Refused(400, "the body is no JSON object")
    return found


def _metadata(given: Any) -> dict[str, str] | None:
    if given is None:
        return None
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise Refused(400, "metadata: write an object of strings", param="metadata")
    if len(given) > MOST_METADATA:
        raise Refused(400, f"metadata: {len(given)} pairs; there may be {MOST_METADATA}", param="metadata")
    for key, value in given.items():
        if len(key) > LONGEST_KEY or len(value) > LONGEST_VALUE:
            told = f"metadata: {key[:LONGEST_KEY]!r}: at most {LONGEST_KEY} characters, its value {LONGEST_VALUE}"
            raise Refused(400, told, param="metadata")
    return given


def _kept(given: Any) -> float | None:
    """Seconds for which the output and error files are to be kept."""
    if given is None:
        return None
    seconds = given.get("seconds") if isinstance(given, dict) else None
    if type(seconds) is not int or not SHORTEST_KEPT <= seconds <= LONGEST_KEPT:
        told = f"output_expires_after: write seconds from {SHORTEST_KEPT:,} to {LONGEST_KEPT:,}"
        raise Refused(400, told, param="output_expires_after")
    return float(seconds)


def add_batches(application: "FastAPI", batches: Batches) -> None:
    """The doors. All but the first are plain functions: each runs in a thread."""
    add = functools.partial(application.add_api_route, response_class=Response)
    asked = {
        "type": "object",
        "properties": {
            "input_file_id": {"type": "string"},
            "endpoint": {"type": "string", "enum": list(ENDPOINTS)},
            "completion_window": {"type": "string"},
            "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
        },
        "required": ["input_file_id", "endpoint", "completion_window"],
    }
    body = {"requestBody": {"required": True, "content": {"application/json": {"schema": asked}}}}
    add("/v1/batches", batches.create, methods=["POST"], openapi_extra=body)
    add("/v1/batches", batches.listed, methods=["GET"])
    add("/v1/batches/{batch_id}", batches.retrieve, methods=["GET"])
    add("/v1/batches/{batch_id}/cancel", batches.cancel, methods=["POST"])
