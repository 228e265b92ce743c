"""Holds every reply that a client receives to its service's model."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

# Errors that services have and their models leave out, and their statuses.
COMMON = {
    "ValidationException": 400, "ThrottlingException": 400, "InternalFailure": 500, "TooManyRequestsException": 429,
}  # fmt: skip
UNMODELLED = ("sagemaker", "batch")
# Required by the model, and left out by the service until the job has begun.
LEFT_OUT = '"startedAt"'


def unknown_keys(body: Any, shape: Any, path: str = "") -> list[str]:
    """What stands in a JSON body and not in its shape: botocore's parser would pass over it in silence."""
    if shape.type_name == "structure" and isinstance(body, dict):
        names = {member.serialization.get("name", name): member for name, member in shape.members.items()}
        found = [f"{path}.{key}" for key in body if key not in names and key != "__type"]
        return found + [
            item
            for key in body
            if key in names
            for item in unknown_keys(body[key], names[key], f"{path}.{key}")
        ]
    if shape.type_name == "list":
        return [item for part in body for item in unknown_keys(part, shape.member, path)]
    return []


def watch(client: Any, seen: set[tuple[str, str]]) -> Any:
    """Check every reply that the client receives, and note it as (operation, error code or ok)."""

    def check(response_dict: Any, parsed_response: Any, model: Any, **_: Any) -> None:
        code = parsed_response.get("Error", {}).get("Code", "ok")
        seen.add((model.name, code))
        status = response_dict["status_code"]
        service = model.service_model.service_name
        if code == "ok":
            assert status == model.http.get("responseCode", 200)
            shape = model.output_shape
            content = {name: value for name, value in parsed_response.items() if name != "ResponseMetadata"}
            if shape and "payload" not in shape.serialization:
                told = ParamValidator().validate(content, shape).generate_report().splitlines()
                assert [line for line in told if LEFT_OUT not in line] == []
        elif code in COMMON and service in UNMODELLED:
            assert status == COMMON[code] and parsed_response["Error"]["Message"]
            return
        else:
            shape = next(shape for shape in model.service_model.error_shapes if shape.name == code)
            assert code in [error.name for error in model.error_shapes], f"{model.name} has no {code}"
            assert status == shape.metadata.get("error", {}).get("httpStatusCode", 400)
            assert parsed_response["Error"]["Message"]
        assert parsed_response["ResponseMetadata"]["RequestId"]
        if shape and "payload" not in shape.serialization:
            assert unknown_keys(json.loads(response_dict["body"] or b"{}"), shape) == []

    # `before-parse` has the raw reply, `after-call` the parsed one: both, for one operation at a time.
    raw: dict[str, Any] = {}
    client.meta.events.register("before-parse", lambda response_dict, **_: raw.update(response_dict))
    client.meta.events.register("after-call", lambda parsed, model, **_: check(raw, parsed, model))
    return client


def expect(code: str, call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(**arguments)
    assert error.value.response["Error"]["Code"] == code
    return error.value.response["Error"]["Message"]
