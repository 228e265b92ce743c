"""`GET /job/{id}`, cancelling, listing, and the results of a window. What is another tenant's is not there."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import orjson
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from batch_assets import paths
from batch_assets.requests.results import STATUSES, Outcome, Results
from batch_assets.requests.store import Request, RequestStore
from batch_assets.requests.windows import utc
from batch_assets.server.answers import Refused, answer
from batch_assets.server.pipelines import RequestPipelines, Unusable
from batch_assets.server.tokens import OPERATOR

if TYPE_CHECKING:
    from fastapi import FastAPI

MOST_LISTED = 1_000
LISTED = 100
PAGES_LOOKED_AT = 50
"""Of a list by status: what has another one is read, too."""


class Jobs:
    """What became of the requests of one deployment."""

    def __init__(self, pipelines: RequestPipelines, store: RequestStore, results: Results) -> None:
        self._pipelines = pipelines
        self._store = store
        self._results = results

    def job(self, job_id: str, request: HttpRequest) -> Response:
        """One request, with its result."""
        found = self._find(job_id, request)
        return answer(shown(found, self._results.look_up(found)))

    def cancel(self, job_id: str, request: HttpRequest) -> Response:
        """Cancel a request that is not sealed."""
        found = self._find(job_id, request)
        if not self._store.cancel(found):
            raise Refused(409, f"job {job_id} is sealed in a window already, and is computed with it")
        return self.job(job_id, request)

    def listed(self, request: HttpRequest) -> Response:
        """Requests, newest first; of one status where that is asked for."""
        asked = request.query_params
        status, after = asked.get("status"), asked.get("after")
        if status is not None and status not in STATUSES:
            raise Refused(422, f"status: {status[:100]!r}: one of {', '.join(STATUSES)}")
        most = _number(asked.get("limit"), LISTED)
        try:
            pipeline = self._pipelines.meant(asked.get("pipeline"))
        except Unusable as error:
            raise Refused(error.status, str(error)) from None
        before = None if after is None else self._find(after, request).number
        tenant = shown_tenant(request)
        jobs: list[dict[str, Any]] = []
        last = after
        for _ in range(PAGES_LOOKED_AT):
            page = self._store.newest(pipeline.name, tenant, before, most + 1)
            statuses = self._results.statuses(page)
            for one in page:
                if status not in (None, statuses[one.id]):
                    continue
                if len(jobs) == most:
                    return answer({"jobs": jobs, "has_more": True})
                jobs.append(listed(one, statuses[one.id]))
            if len(page) <= most:
                return answer({"jobs": jobs, "has_more": False})
            before, last = page[-1].number, page[-1].id
        # None of this page may have the status: where to go on, its last one does not tell.
        return answer({"jobs": jobs, "has_more": True, "after": last})

    def window(self, request: HttpRequest) -> Response:
        """The results of a window, a request a line, in the order in which they were sealed."""
        name = request.query_params.get("window", "")
        try:
            paths.window_file(name)
        except ValueError:
            raise Refused(404, f"there is no window {name[:100]!r}") from None
        tenant = shown_tenant(request)
        for pipeline in sorted(self._pipelines.all()):
            found = self._store.in_window(pipeline, name, tenant)
            if found:
                return StreamingResponse(self._lines(found), media_type="application/x-ndjson")
        raise Refused(404, f"there is no window {name!r}")

    def _lines(self, requests: list[Request]) -> Iterator[bytes]:
        for request, outcome in self._results.in_order(requests):
            yield orjson.dumps(shown(request, outcome)) + b"\n"

    def _find(self, job_id: str, request: HttpRequest) -> Request:
        found = self._store.find(job_id) if "\0" not in job_id else None
        if found is None or shown_tenant(request) not in (None, found.tenant):
            raise Refused(404, f"there is no job {job_id[:100]!r}")
        return found


def shown_tenant(request: HttpRequest) -> str | None:
    """Whose requests are shown; None for the operator, who sees all."""
    tenant: str = request.state.tenant
    return None if tenant == OPERATOR else tenant


def _number(written: str | None, otherwise: int) -> int:
    if written is None:
        return otherwise
    if (
        not written.isascii()
        or not written.isdigit()
        or len(written) > 6
        or not 1 <= int(written) <= MOST_LISTED
    ):
        raise Refused(422, f"limit: {written[:100]!r}: write a number from 1 to {MOST_LISTED:,}")
    return int(written)


def shown(request: Request, outcome: Outcome) -> dict[str, Any]:
    """A request as clients see it."""
    return listed(request, outcome.status) | {
        "processed_time": outcome.processed_time,
        "attempts": outcome.attempts,
        "result": outcome.result,
        "error": outcome.error,
    }


def listed(request: Request, status: str) -> dict[str, Any]:
    """A request as lists show it, without what came of it."""
    return {
        "job_id": request.id,
        "pipeline": request.pipeline,
        "status": status,
        "arrival_time": utc(request.arrived),
        "window": request.window,
    }


def add_jobs(application: "FastAPI", jobs: Jobs) -> None:
    """The doors. Plain functions: each runs in a thread, since databases and stores are waited for."""

    def text(name: str) -> dict[str, Any]:
        return {"name": name, "in": "query", "required": False, "schema": {"type": "string"}}

    def add(path: str, method: str, door: Callable[..., Response], *asked: dict[str, Any]) -> None:
        extra = {"parameters": list(asked)} if asked else None
        application.add_api_route(path, door, methods=[method], response_class=Response, openapi_extra=extra)

    limit = {
        "name": "limit",
        "in": "query",
        "required": False,
        "schema": {"type": "integer", "minimum": 1, "maximum": MOST_LISTED},
    }
    status = {
        "name": "status",
        "in": "query",
        "required": False,
        "schema": {"type": "string", "enum": list(STATUSES)},
    }
    add("/job/{job_id}", "GET", jobs.job)
    add("/job/{job_id}/cancel", "POST", jobs.cancel)
    add("/jobs", "GET", jobs.listed, text("pipeline"), status, text("after"), limit)
    add("/jobs/results", "GET", jobs.window, text("window") | {"required": True})
