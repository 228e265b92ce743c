"""Requests and replies as AWS's service models (botocore's own) describe them.

A request is parsed and held to its model's constraints, in AWS's words; a reply is shaped by
the model, so that a field that the service does not have cannot slip in. For rest-json
(Bedrock, AWS Batch) and json-1.1 (SageMaker, Service Quotas). What the calls do is not known here.
"""

import functools
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from batch_assets.rehearsal.constraints import violations

# Statuses of errors that a service's model leaves out, since every service has them.
COMMON_STATUS = {
    "TooManyRequestsException": 429, "InternalFailure": 500, "InternalServerException": 500, "ServiceUnavailable": 503,
}  # fmt: skip
# Required by the model, and all the same not sent by the service, as its own examples show.
LEFT_OUT = {"JobDetail": {"startedAt"}}


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request. `path` is as sent, percent signs and all; `headers` have lower-case names."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    region: str


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP reply. `cut`: the connection ends instead, and the caller never learns what happened."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    cut: bool = False


class ServiceError(Exception):
    """An error that AWS answers with, by the name of its exception."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@functools.cache
def service_model(service: str) -> Any:
    """Botocore's model of a service."""
    import botocore.session

    return botocore.session.get_session().get_service_model(service)


@functools.cache
def _routes(service: str) -> list[tuple[str, re.Pattern[str], str]]:
    model = service_model(service)
    routes: list[tuple[str, re.Pattern[str], str]] = []
    for name in model.operation_names:
        http = model.operation_model(name).http
        path = http["requestUri"].split("?")[0]
        pattern = "".join(
            f"(?P<{part[1:-1].rstrip('+')}>[^/]+)" if part.startswith("{") else re.escape(part)
            for part in re.split(r"(\{[^}]+\})", path)
        )
        routes.append((http["method"], re.compile(pattern), name))
    return routes


def route(service: str, call: Call) -> tuple[Any, dict[str, str]] | None:
    """The operation that a rest-json request is for, and what its path holds: split first, then decoded."""
    for method, pattern, name in _routes(service):
        if call.method == method and (match := pattern.fullmatch(call.path)):
            found = {key: unquote(value) for key, value in match.groupdict().items()}
            return service_model(service).operation_model(name), found
    return None


def target(service: str, call: Call) -> Any | None:
    """The operation that a json-1.1 request is for, by its header; None: the service has no such."""
    model = service_model(service)
    prefix, _, name = call.headers.get("x-amz-target", "").rpartition(".")
    known = prefix == model.metadata["targetPrefix"] and name in model.operation_names
    return model.operation_model(name) if known else None


def read_request(operation: Any, call: Call, in_path: Mapping[str, str]) -> dict[str, Any]:
    """The parameters of a call, checked against the model; raises ServiceError as the service would."""
    shape = operation.input_shape
    payload = shape.serialization.get("payload")
    body: Any = {}
    if payload is None and call.body:
        body = _parse_json(call.body)
    given: dict[str, Any] = {}
    for name, member in shape.members.items():
        location = member.serialization.get("location")
        key = member.serialization.get("name", name)
        if name == payload:
            value: Any = call.body
        elif location == "uri":
            value = in_path.get(key)
        elif location == "querystring":
            value = _from_text(member, call.query.get(key))
        elif location == "header":
            value = _from_text(member, call.headers.get(key.lower()))
        else:
            value = body.get(key)
        if value is not None:
            given[name] = value
    if found := list(violations(given, shape)):
        count = "1 validation error" if len(found) == 1 else f"{len(found)} validation errors"
        raise ServiceError("ValidationException", f"{count} detected: {'; '.join(found)}")
    return given


def _parse_json(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ServiceError("SerializationException", "Could not parse the request body as a JSON object")
    return content  # pyright: ignore[reportUnknownVariableType]


def _from_text(shape: Any, text: str | None) -> Any:
    from botocore.utils import parse_timestamp

    if text is None:
        return None
    try:
        if shape.type_name == "timestamp":
            return parse_timestamp(text).timestamp()
        return int(text) if shape.type_name in ("integer", "long") else text
    except ValueError as error:
        raise ServiceError("SerializationException", f"{text!r} is no {shape.type_name}") from error


def success(operation: Any, result: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Reply:
    """A reply of the operation's shape; raises ValueError where `result` does not have that shape."""
    shape = operation.output_shape
    payload = shape.serialization.get("payload") if shape else None
    known = shape.members if shape else {}
    if unknown := result.keys() - known.keys():
        raise ValueError(f"{operation.name} has no {sorted(unknown)} in its reply")
    if found := list(violations(result, shape, left_out=LEFT_OUT)) if shape else []:
        raise ValueError(f"the reply of {operation.name} breaks its model: {found}")
    sent = _headers(operation.service_model)
    content: dict[str, Any] = {}
    for name, value in result.items():
        member = known[name]
        if value is None or name == payload:
            continue
        key = member.serialization.get("name", name)
        if member.serialization.get("location") == "header":
            sent[key] = str(value)
        else:
            content[key] = _shaped(value, member)
    body = result[payload] if payload else json.dumps(content).encode()
    return Reply(operation.http.get("responseCode", 200), body, sent | dict(headers or {}))


def _shaped(value: Any, shape: Any) -> Any:
    if shape.type_name == "structure" and not getattr(shape, "is_document_type", False):
        if unknown := value.keys() - shape.members.keys():
            raise ValueError(f"{shape.name} has no {sorted(unknown)}")
        return {
            shape.members[name].serialization.get("name", name): _shaped(item, shape.members[name])
            for name, item in value.items()
            if item is not None
        }
    if shape.type_name == "list":
        return [_shaped(item, shape.member) for item in value]
    if shape.type_name == "timestamp":
        if shape.serialization.get("timestampFormat") != "iso8601":
            return round(value, 3)  # the default of both protocols: unix seconds
        moment = datetime.fromtimestamp(value, UTC)
        # Both forms are seen: with and without milliseconds.
        return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds").replace(
            "+00:00", "Z"
        )
    return value


def failure(service: str, error: ServiceError) -> Reply:
    """An error in the protocol of its service."""
    model = service_model(service)
    shape = next((shape for shape in model.error_shapes if shape.name == error.code), None)
    common = COMMON_STATUS.get(error.code, 400)
    status = shape.metadata.get("error", {}).get("httpStatusCode", common) if shape else common
    key = (
        next((name for name in shape.members if name.lower() == "message"), "message") if shape else "message"
    )
    headers = _headers(model)
    content = {key: error.message}
    if model.metadata["protocol"] == "json":
        content["__type"] = error.code
    else:
        headers["x-amzn-ErrorType"] = f"{error.code}:http://internal.amazon.com/coral/com.amazon.{service}/"
    return Reply(status, json.dumps(content).encode(), headers)


def _headers(model: Any) -> dict[str, str]:
    data = model.metadata
    return {
        "Content-Type": f"application/x-amz-json-{data['jsonVersion']}"
        if data["protocol"] == "json"
        else "application/json",
        "x-amzn-RequestId": str(uuid.uuid4()),
    }
