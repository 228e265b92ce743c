"""Prompts as calls for answers: one a record, by chat or completion, and what of an answer is stored.

How a call is delivered is in `gateway/delivery.py`; how shards are streamed through, in `streaming.py`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import orjson

from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.outcomes import Failure, Outcomes
from batch_assets.embeddings.reason_codes import TOO_LONG, UNEXPECTED
from batch_assets.executors.gateway.failures import failure_code
from batch_assets.executors.gateway.images import Images
from batch_assets.executors.gateway.requests import Requests, token_bound
from batch_assets.executors.gateway.too_long import too_many_tokens
from batch_assets.gateway.all_of import all_of
from batch_assets.gateway.client import Answer
from batch_assets.gateway.delivery import BadAnswer, Call, NotDelivered, Server
from batch_assets.sources.base import Records
from batch_assets.worker.not_fetched import NotFetched

CUT_OFF = "cut_off"
FILTERED = "content_filter"
NO_MATCH = "schema_mismatch"
_FINAL = {
    "length": (
        CUT_OFF,
        "the answer was cut off at the most tokens that the call allows; raise max_tokens in body",
    ),
    "content_filter": (FILTERED, "the server's content filter has held the answer back"),
}


@dataclass(slots=True)
class Answered:
    """A record's answer, with its tokens, or what is wrong with it, after so many attempts."""

    attempts: int
    text: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    code: str = ""
    message: str = ""
    rejected: bool = False


class AnswerCalls:
    """Calls for answers to one pipeline's prompts."""

    records_per_unit = 128

    def __init__(self, requests: Requests, max_attempts: int, images: Images | None) -> None:
        self.requests = requests
        self._max_attempts = max_attempts
        self._images = images

    async def outcomes(self, server: Server, records: Records, facts: JobFacts) -> Outcomes:
        """The outcome of each record. Raises ServerRefuses, ServerAway and ConfigurationError."""
        prompts = self.requests.prompts(records)
        images = records.images or [None] * len(prompts)
        found = await all_of(
            self.answer(server, prompt, image, facts) for prompt, image in zip(prompts, images, strict=True)
        )
        kept = [row for row, each in enumerate(found) if each.text is not None]
        return Outcomes(
            records,
            np.array(kept, dtype=np.int64),
            np.empty((len(kept), 0), dtype=np.float32),
            np.array([found[row].input_tokens for row in kept], dtype=np.int32),
            [
                Failure(row, each.code, each.message, each.attempts, rejected=each.rejected)
                for row, each in enumerate(found)
                if each.text is None
            ],
            responses=[found[row].text or "" for row in kept],
            output_tokens=np.array([found[row].output_tokens for row in kept], dtype=np.int32),
        )

    async def answer(
        self, server: Server, prompt: str, image: bytes | str | None, facts: JobFacts
    ) -> Answered:
        """The answer to one prompt; `image` is a file's bytes, or where it is."""
        try:
            shown = (
                await self._images.data_url(image) if self._images is not None and image is not None else None
            )
        except NotFetched as error:
            return Answered(1, code=error.code, message=str(error), rejected=error.rejected)
        bound = token_bound(prompt) + (self.requests.most_output_tokens or 0)
        call = Call(self.requests.path, self.requests.answer(prompt, shown), 1, bound)
        try:
            delivered = await server.deliver(call, self._read, self._max_attempts)
        except NotDelivered as error:
            judgement = error.judgement
            if error.final and too_many_tokens(judgement) is not None:
                return Answered(error.attempts, code=TOO_LONG, message=judgement.message)
            server.record_failed(judgement)
            return Answered(error.attempts, code=failure_code(judgement), message=judgement.text)
        answered = delivered.content
        answered.attempts = delivered.attempts
        server.refund(bound - answered.input_tokens - answered.output_tokens)
        cost = self.requests.cost(answered.input_tokens, answered.output_tokens)
        facts.add(answered.input_tokens, answered.output_tokens, cost)
        return answered

    def _read(self, answer: Answer) -> Answered:
        """What the answer says. Raises BadAnswer for what is none."""
        try:
            content: Any = orjson.loads(answer.body)
            choice: Any = content["choices"][0]
            text: Any = choice["text"] if "text" in choice else choice["message"].get("content")
            reason: Any = choice.get("finish_reason")
            usage: Any = content.get("usage") or {}
            tokens = (int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
        except (orjson.JSONDecodeError, TypeError, KeyError, IndexError, AttributeError, ValueError):
            shown = " ".join(answer.body[:200].decode(errors="replace").split())
            raise BadAnswer(UNEXPECTED, f"the answer holds no choice: {shown}") from None
        if isinstance(text, list):  # content in parts
            text = "".join(part.get("text", "") for part in text if isinstance(part, dict))
        if reason in _FINAL:
            code, message = _FINAL[reason]
            return Answered(1, None, *tokens, code, message)
        if not isinstance(text, str):
            raise BadAnswer(UNEXPECTED, f"the answer holds no text (finish_reason {reason!r})")
        wrong = self._mismatch(text)
        if wrong is not None:
            raise BadAnswer(NO_MATCH, wrong)
        return Answered(1, text.encode(errors="replace").decode(), *tokens)

    @cached_property
    def _validator(self) -> Any:
        """Checks an answer against the schema that the call asks for; None where it asks for none."""
        wanted: Any = self.requests.options.body.get("response_format")
        if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
            return None
        from jsonschema.validators import validator_for

        schema = (wanted.get("json_schema") or {}).get("schema") or {}
        return validator_for(schema)(schema)

    def _mismatch(self, text: str) -> str | None:
        if self._validator is None:
            return None
        try:
            error = next(self._validator.iter_errors(orjson.loads(text)), None)
        except orjson.JSONDecodeError as broken:
            return f"the answer is no JSON, which response_format asks for: {broken}"
        return None if error is None else f"the answer does not match the schema: {error.message:.200}"
