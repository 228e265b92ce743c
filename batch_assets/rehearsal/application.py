"""HTTP in and out: which service a request is for, and how a reply reaches it.

The only module of the rehearsal that knows werkzeug and moto's application. `/_rehearsal/…` is for people and tests:

    GET  books | jobs | scenario | clock
    POST scenario {"calls": {"throttled": 0.5}}     changes these fields
    POST clock    {"advance": 3600} or {"speed": 10}
"""

import random
import re
import socket
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson

from batch_assets.errors import ConfigurationError
from batch_assets.plain_text import plain_logger
from batch_assets.rehearsal import quotas
from batch_assets.rehearsal.batch.showing import batch_jobs_shown
from batch_assets.rehearsal.sagemaker.calls import OPERATIONS
from batch_assets.rehearsal.server import RUNNER_AGENT, RehearsalServer
from batch_assets.rehearsal.wire import Call, Reply, ServiceError, failure, route, target

logger = plain_logger(__name__)

SCOPE = re.compile(r"Credential=[^/,\s]+/\d{8}/([^/]+)/([^/]+)/aws4_request")
SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
TRANSFORM_TARGETS = {f"SageMaker.{name}" for name in OPERATIONS}
Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


def make_http_server(server: RehearsalServer, port: int) -> Any:
    """A threaded server of werkzeug on 127.0.0.1 that is bound, but does not serve yet."""
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    class QuietHandler(MotoRequestHandler):
        """No line on stderr for each request; failures are logged by the application."""

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

    application = Application(server, DomainDispatcherApplication(create_backend_app))
    return make_server("127.0.0.1", port, application, threaded=True, request_handler=QuietHandler)


class Application:
    """The WSGI application: ours, or moto's."""

    def __init__(self, server: RehearsalServer, moto: Wsgi) -> None:
        self._server = server
        self._moto = moto
        self._chance = random.Random(server.scenario.seed)
        self._handlers: dict[str, Callable[[Call], Reply]] = {
            "batch": self._batch,
            "bedrock": self._bedrock,
            "sagemaker": self._sagemaker,
            "servicequotas": self._quotas,
        }

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        from werkzeug.wrappers import Request, Response

        path = str(environ.get("REQUEST_URI") or environ["PATH_INFO"]).split("?")[0]
        if path.startswith("/_rehearsal/"):
            status, content = self._control(environ["REQUEST_METHOD"], path, Request(environ).get_data())
            shown = Response(orjson.dumps(content), status, content_type="application/json")
            return shown(environ, start_response)
        region, service = _scope(environ)
        if service == "s3" and self._slows_down(environ):
            Request(environ).get_data()  # or the caller sees a broken connection, not the 503
            return Response(SLOW_DOWN, 503, content_type="application/xml")(environ, start_response)
        handler = self._handlers.get(service)
        if service == "sagemaker" and environ.get("HTTP_X_AMZ_TARGET", "") not in TRANSFORM_TARGETS:
            handler = None  # its other calls are moto's
        if handler is None:
            return self._moto(environ, start_response)
        request = Request(environ)
        call = Call(
            method=request.method,
            path=path,
            query=request.args.to_dict(),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=request.get_data(),
            region=region,
        )
        reply = handler(call)
        if reply.cut:
            _cut(environ)
        return Response(reply.body, reply.status, dict(reply.headers))(environ, start_response)

    def _slows_down(self, environ: dict[str, Any]) -> bool:
        rate = self._server.scenario.calls.s3_slow_down
        return RUNNER_AGENT not in environ.get("HTTP_USER_AGENT", "") and self._chance.random() < rate

    def _bedrock(self, call: Call) -> Reply:
        service, found, handler = "bedrock", route("bedrock", call), self._server.bedrock_calls.answer
        if call.path.startswith("/model/"):
            service, found, handler = (
                "bedrock-runtime",
                route("bedrock-runtime", call),
                self._server.on_demand.answer,
            )
        name = found[0].name if found else f"{call.method} {unquote(call.path)}"
        self._server.catch_up(call.region)

        def reply() -> Reply:
            if found is None:
                raise ServiceError("UnknownOperationException", f"Bedrock has no {name}")
            return handler(found[0], call, found[1])

        return self._counted(service, name, reply)

    def _batch(self, call: Call) -> Reply:
        found = route("batch", call)
        name = found[0].name if found else f"{call.method} {call.path}"
        self._server.catch_up()

        def reply() -> Reply:
            if found is None:
                raise ServiceError("ClientException", f"AWS Batch has no {name}")
            return self._server.batch_calls.answer(found[0], call, found[1])

        return self._counted("batch", name, reply)

    def _sagemaker(self, call: Call) -> Reply:
        operation: Any = target("sagemaker", call)
        self._server.catch_up()
        return self._counted(
            "sagemaker", operation.name, lambda: self._server.transform_calls.answer(operation, call)
        )

    def _quotas(self, call: Call) -> Reply:
        name = call.headers.get("x-amz-target", "").rsplit(".", 1)[-1]
        return self._counted("service-quotas", name, lambda: quotas.answer(call, self._server.scenario))

    def _counted(self, service: str, name: str, answer: Callable[[], Reply]) -> Reply:
        outcome = "ok"
        try:
            reply = answer()
            if reply.cut:
                outcome = "lost"
        except ServiceError as error:
            outcome = error.code
            reply = failure(service, error)
        except Exception:
            logger.exception("the rehearsal could not answer %s", name)
            outcome = "rehearsal failed"
            reply = failure(
                service, ServiceError("InternalServerException", "the rehearsal failed, see its log")
            )
        self._server.books.answered(name, outcome)
        return reply

    def _control(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        what = path.removeprefix("/_rehearsal/")
        try:
            if method == "POST":
                self._change(what, orjson.loads(body))
            content = self._shown(what)
        except (ConfigurationError, orjson.JSONDecodeError, TypeError) as error:
            return 400, {"error": str(error)}
        return (200, content) if content is not None else (404, {"error": f"there is no {path}"})

    def _change(self, what: str, content: Any) -> None:
        if what == "scenario":
            self._server.scenario = self._server.scenario.changed(content)
        elif what == "clock":
            self._server.set_clock(**content)
            self._server.catch_up()

    def _shown(self, what: str) -> Any:
        if what == "books":
            return self._server.books.as_dict()
        if what == "jobs":
            self._server.catch_up()
            now = self._server.clock.now()
            shown = [job.as_dict(now) for job in self._server.jobs.all()]
            shown += [job.as_dict() for job in self._server.transforms.all()]
            return shown + batch_jobs_shown(self._server.batch_jobs)
        if what == "scenario":
            return self._server.scenario.model_dump()
        if what == "clock":
            return {"now": self._server.clock.now(), "speed": self._server.clock.speed}
        return None


def _scope(environ: dict[str, Any]) -> tuple[str, str]:
    """Region and service that the request is signed for; ("", "") if it is not signed."""
    authorization = environ.get("HTTP_AUTHORIZATION", "")
    if match := SCOPE.search(authorization):
        return match[1], match[2]
    signed = parse_qs(environ.get("QUERY_STRING", "")).get("X-Amz-Credential", [""])[0].split("/")
    return (signed[2], signed[3]) if len(signed) == 5 else ("", "")


def _cut(environ: dict[str, Any]) -> None:
    """End the connection without a reply."""
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError("the rehearsal lost this reply on purpose")
