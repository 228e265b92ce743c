"""How the lines of a batch's output and error files read: answers in OpenAI's words."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from batch_assets.embeddings.schema import EMBEDDING, INPUT_TOKENS, OUTPUT_TOKENS, RESPONSE, TOKEN_COUNT
from batch_assets.requests.batches.lines import CHAT
from batch_assets.requests.batches.store import Batch


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer, or of many."""

    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)


def usage_of(result: Mapping[str, Any]) -> Usage:
    """What a record's result says of its tokens."""
    if EMBEDDING in result:
        return Usage(result[TOKEN_COUNT] or 0)
    return Usage(result[INPUT_TOKENS] or 0, result[OUTPUT_TOKENS] or 0)


def answered(
    batch: Batch, custom_id: str | None, job_id: str, result: Mapping[str, Any], *, is_base64: bool
) -> bytes:
    """A line of the output file: a record's result as the endpoint would have answered it."""
    usage = usage_of(result)
    if EMBEDDING in result:
        body = _embedding(result[EMBEDDING], is_base64=is_base64)
        tokens = {"prompt_tokens": usage.input_tokens, "total_tokens": usage.input_tokens}
    else:
        body = _answer(batch, job_id, result[RESPONSE])
        tokens = {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
        }
    response = {
        "status_code": 200,
        "request_id": job_id,
        "body": {**body, "model": batch.model, "usage": tokens},
    }
    return _line(custom_id, job_id, response, None)


def not_answered(custom_id: str | None, name: str, code: str, message: str) -> bytes:
    """A line of the error file; `name` tells this line from others."""
    return _line(custom_id, name, None, {"code": code, "message": message})


def _line(custom_id: str | None, name: str, response: Any, error: Any) -> bytes:
    told = {"id": f"batch_req_{name}", "custom_id": custom_id, "response": response, "error": error}
    return orjson.dumps(told) + b"\n"


def _embedding(vector: list[float], *, is_base64: bool) -> dict[str, Any]:
    shown: Any = vector
    if is_base64:
        shown = base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
    return {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": shown}]}


def _answer(batch: Batch, job_id: str, text: str) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": None}
    created = int(batch.created)
    if batch.endpoint == CHAT:
        choice["message"] = {"role": "assistant", "content": text, "refusal": None}
        return {
            "id": f"chatcmpl-{job_id}",
            "object": "chat.completion",
            "created": created,
            "choices": [choice],
        }
    choice["text"] = text
    return {"id": f"cmpl-{job_id}", "object": "text_completion", "created": created, "choices": [choice]}
