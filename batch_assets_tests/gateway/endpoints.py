"""The three endpoints as OpenAI and vLLM have them: which inputs a body holds, what is refused, what is answered.

Vectors stand in answers as float32 arrays until they are damaged or written.
"""

import base64
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from batch_assets_tests.gateway.computing import (
    answer_to,
    count_tokens,
    prompt_of,
    shortened,
    truncated,
    vectors_of,
)
from batch_assets_tests.gateway.scenario import Refusal, Scenario

EMBEDDINGS, CHAT, COMPLETIONS = "/v1/embeddings", "/v1/chat/completions", "/v1/completions"


class Refused(Exception):
    """The call is not computed."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.refusal = Refusal(status=status, message=message, code=code)


@dataclass(frozen=True)
class Call:
    """A POST that can be computed: what is asked, and its inputs as texts."""

    path: str
    body: dict[str, Any]
    texts: list[str]

    def answer(self, scenario: Scenario) -> dict[str, Any]:
        return _embeddings(self, scenario) if self.path == EMBEDDINGS else _generated(self, scenario)


def read_call(path: str, content: bytes, scenario: Scenario) -> Call:
    """Raises Refused, in the words of the servers that clients know."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"We could not parse the JSON body of your request: {error}") from None
    if not isinstance(body, dict):
        raise Refused(400, "The JSON body of your request must be an object")
    if body.get("model") != scenario.model:
        raise Refused(404, f"The model `{body.get('model')}` does not exist.", "model_not_found")
    texts = [prompt_of(body["messages"])] if path == CHAT else _texts(path, body)
    limit = scenario.context_tokens
    if body.get("dimensions", 1) > scenario.dimensions:
        raise Refused(400, f"'dimensions' must be at most {scenario.dimensions}, but is {body['dimensions']}")
    if limit is not None and "truncate_prompt_tokens" not in body:
        for text in texts:
            _refuse_too_long(count_tokens(text), limit, path)
    return Call(path, body, texts)


def _texts(path: str, body: dict[str, Any]) -> list[str]:
    field = "input" if path == EMBEDDINGS else "prompt"
    texts = [body[field]] if isinstance(body.get(field), str) else body.get(field)
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise Refused(400, f"'{field}' must be a string, or a list of strings that is not empty")
    if path == EMBEDDINGS and "" in texts:
        raise Refused(400, "'input' cannot be an empty string")
    return texts


def _refuse_too_long(tokens: int, limit: int, path: str) -> None:
    if tokens > limit:
        where = "in the input for embedding generation" if path == EMBEDDINGS else "in the messages"
        raise Refused(
            400,
            f"This model's maximum context length is {limit} tokens. However, you requested {tokens} tokens {where}. "
            "Please reduce the length of the input.",
            "context_length_exceeded",
        )


def _embeddings(call: Call, scenario: Scenario) -> dict[str, Any]:
    texts = call.texts
    if (most := call.body.get("truncate_prompt_tokens")) is not None:
        most = scenario.context_tokens if most == -1 else most
        texts = texts if most is None else [truncated(text, most) for text in texts]
    vectors = vectors_of(texts, scenario.dimensions)
    if (dimensions := call.body.get("dimensions")) is not None:
        vectors = shortened(vectors, dimensions)
    data = [
        {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)
    ]
    tokens = sum(map(count_tokens, texts))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": scenario.model, "usage": usage}


def _generated(call: Call, scenario: Scenario) -> dict[str, Any]:
    chat = call.path == CHAT
    most = call.body.get("max_completion_tokens", call.body.get("max_tokens"))
    choices: list[dict[str, Any]] = []
    output_tokens = 0
    for index, text in enumerate(call.texts):
        whole = answer_to(text, call.body.get("response_format"))
        answer = whole if most is None else truncated(whole, most)
        output_tokens += count_tokens(answer)
        said = {"message": {"role": "assistant", "content": answer}} if chat else {"text": answer}
        reason = "stop" if answer == whole else "length"
        choices.append({"index": index, **said, "finish_reason": reason, "logprobs": None})
    input_tokens = sum(map(count_tokens, call.texts))
    return {
        "id": "call-1",
        "object": "chat.completion" if chat else "text_completion",
        "created": 1_700_000_000,
        "model": scenario.model,
        "choices": choices,
        "usage": {
            "prompt_tokens": input_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
        },
    }


def written(answer: dict[str, Any], encoding_format: str) -> bytes:
    """The answer as JSON, its vectors as numbers or as base64 of little-endian float32."""
    plain = True
    for item in answer.get("data", ()):
        vector = item["embedding"]
        if not isinstance(vector, np.ndarray):
            continue
        if encoding_format == "base64":
            item["embedding"] = base64.b64encode(vector.astype("<f4").tobytes()).decode()
        elif not np.isfinite(vector).all():
            item["embedding"], plain = vector.tolist(), False
    if plain:
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    # Servers in Python write NaN, which is no JSON; orjson would write null.
    return json.dumps(answer, default=lambda vector: vector.tolist()).encode()
