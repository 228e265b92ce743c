"""InvokeModel and Converse: one record at once, at the full price, under a rate limit."""

import time
from collections.abc import Mapping
from typing import Any

import orjson

from batch_assets.rehearsal.books import Books, Entry, digest_of
from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.models import base_model, model_for
from batch_assets.rehearsal.throttle import Throttle
from batch_assets.rehearsal.wire import Call, Reply, ServiceError, read_request, success

NOT_SERVED = (
    "Invocation of model ID {model} with on-demand throughput isn\u2019t supported. Retry your request with the ID or "
    "ARN of an inference profile that contains this model."
)


class OnDemandCalls:
    """Each call returns a reply or raises ServiceError; what was answered stands in the books."""

    def __init__(self, books: Books, scenario: Scenario) -> None:
        self.scenario = scenario
        self._books = books
        self._throttle = Throttle()
        self._chance = scenario.draw("on demand")

    def answer(self, operation: Any, call: Call, in_path: Mapping[str, str]) -> Reply:
        given = read_request(operation, call, in_path)
        converse = operation.name == "Converse"
        body: Any = {name: value for name, value in given.items() if name != "modelId"} if converse else None
        if operation.name == "InvokeModel":
            body = _parse(given.get("body", b""))
        elif not converse:
            raise ServiceError("UnknownOperationException", f"the rehearsal has no {operation.name}")
        model = model_for(given["modelId"], "Converse" if converse else "InvokeModel")
        if model is None:
            raise ServiceError("ValidationException", "The provided model identifier is invalid.")
        if not self.scenario.on_demand.served and given["modelId"] == base_model(given["modelId"]):
            raise ServiceError("ValidationException", NOT_SERVED.format(model=given["modelId"]))
        self._befall(base_model(given["modelId"]), call.region)
        if refusal := model.refusal(body):
            raise ServiceError("ValidationException", refusal)
        began = time.monotonic()
        answer = model.answers([body])[0]
        entry = Entry(digest_of(body), True, False, answer.input_tokens, answer.output_tokens)
        self._books.post(None, [entry], model.input_price, model.output_price)
        headers = {
            "X-Amzn-Bedrock-Input-Token-Count": str(answer.input_tokens),
            "X-Amzn-Bedrock-Output-Token-Count": str(answer.output_tokens),
            "X-Amzn-Bedrock-Invocation-Latency": str(int((time.monotonic() - began) * 1000)),
        }
        if converse:
            return success(operation, answer.output, headers)
        content = orjson.dumps(answer.output, option=orjson.OPT_SERIALIZE_NUMPY)
        return success(operation, {"body": content, "contentType": "application/json"}, headers)

    def _befall(self, model: str, region: str) -> None:
        per_second = self.scenario.quotas.on_demand_rpm / 60
        if (
            per_second == 0
            or self._chance.random() < self.scenario.on_demand.throttled
            or not self._throttle.admits((model, region), per_second, max(1.0, per_second))
        ):
            raise ServiceError("ThrottlingException", "Too many requests, please wait before trying again.")
        if self._chance.random() < self.scenario.on_demand.unavailable:
            raise ServiceError(
                "ServiceUnavailableException", "The service isn't currently available. Try again later."
            )


def _parse(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ServiceError(
            "ValidationException", "Malformed input request, please reformat your input and try again."
        ) from error
