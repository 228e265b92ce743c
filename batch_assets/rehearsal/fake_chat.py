"""Chat models: they say which words they were asked about, within the tokens they are allowed.

Claude's messages (InvokeModel) and Converse; the words of refusals are the service's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from batch_assets.rehearsal.books import digest_of
from batch_assets.rehearsal.fake_models import Answer, malformed
from batch_assets.rehearsal.vectors import count_tokens


class Claude:
    """The Messages format of Anthropic's models."""

    input_price = 1.0
    output_price = 5.0
    OPTIONAL = (
        "system", "temperature", "top_p", "top_k", "stop_sequences", "tools", "tool_choice", "thinking",
        "metadata", "anthropic_beta",
    )  # fmt: skip
    REQUIRED = ("anthropic_version", "max_tokens", "messages")

    def refusal(self, body: Any) -> str | None:
        if not isinstance(body, Mapping):
            return malformed(f"#: expected type: JSONObject, found: {type(body).__name__}")
        for name in self.REQUIRED:
            if name not in body:
                return f"{name}: Field required"
        for name in body:
            if name not in self.REQUIRED and name not in self.OPTIONAL:
                return f"{name}: Extra inputs are not permitted"
        most = body["max_tokens"]
        if not isinstance(most, int) or isinstance(most, bool) or most < 1:
            return f"max_tokens: Input should be greater than or equal to 1, was {most}"
        if body["anthropic_version"] != "bedrock-2023-05-31":
            return (
                f'"{body["anthropic_version"]}" is not supported on this API. Please use "bedrock-2023-05-31"'
            )
        return _bad_messages(body["messages"])

    def answers(self, bodies: Sequence[Mapping[str, Any]]) -> list[Answer]:
        answers: list[Answer] = []
        for body in bodies:
            asked = _asked(body["messages"])
            text, tokens, ended = _reply(asked, body["max_tokens"])
            given = count_tokens(asked) + count_tokens(str(body.get("system", ""))) + 8
            output = {
                "model": "claude-rehearsal",
                "id": f"msg_bdrk_{digest_of(body).hex()[:24]}",
                "type": "message",
                "role": "assistant",
                "content": [{"type": "text", "text": text}],
                "stop_reason": "end_turn" if ended else "max_tokens",
                "stop_sequence": None,
                "usage": {"input_tokens": given, "output_tokens": tokens},
            }
            answers.append(Answer(output, given, tokens))
        return answers


class Converse:
    """The one format for all chat models; tools are not supported in batches of it."""

    input_price = 1.0
    output_price = 5.0
    OPTIONAL = ("system", "inferenceConfig", "additionalModelRequestFields", "requestMetadata")

    def refusal(self, body: Any) -> str | None:
        if not isinstance(body, Mapping) or "messages" not in body:
            return malformed("#: required key [messages] not found")
        for name in body:
            if name != "messages" and name not in self.OPTIONAL:
                return f"The field {name} is not supported for batch inference with the Converse type."
        most = (body.get("inferenceConfig") or {}).get("maxTokens", 1)
        if not isinstance(most, int) or isinstance(most, bool) or most < 1:
            return (
                f"Value '{most}' at 'inferenceConfig.maxTokens' failed to satisfy constraint: "
                "Member must have value greater than or equal to 1"
            )
        return _bad_messages(body["messages"])

    def answers(self, bodies: Sequence[Mapping[str, Any]]) -> list[Answer]:
        answers: list[Answer] = []
        for body in bodies:
            asked = _asked(body["messages"])
            most = (body.get("inferenceConfig") or {}).get("maxTokens", 256)
            text, tokens, ended = _reply(asked, most)
            given = count_tokens(asked) + count_tokens(str(body.get("system") or "")) + 8
            output = {
                "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
                "stopReason": "end_turn" if ended else "max_tokens",
                "usage": {"inputTokens": given, "outputTokens": tokens, "totalTokens": given + tokens},
                "metrics": {"latencyMs": 20 + tokens},
            }
            answers.append(Answer(output, given, tokens))
        return answers


def _bad_messages(messages: Any) -> str | None:
    if not isinstance(messages, list) or not messages:
        return "messages: at least one message is required"
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping) or message.get("role") not in ("user", "assistant"):
            return f"messages.{index}.role: Input should be 'user' or 'assistant'"
        content = message.get("content")
        if not content or not isinstance(content, str | list):
            return f"messages.{index}: all messages must have non-empty content"
    if messages[0]["role"] != "user":
        return 'messages: first message must use the "user" role'
    if not _asked(messages).strip():
        return "messages: text content blocks must be non-empty"
    return None


def _asked(messages: Sequence[Mapping[str, Any]]) -> str:
    texts: list[str] = []
    for message in messages:
        content = message["content"]
        blocks = [{"text": content}] if isinstance(content, str) else content
        texts += [str(block["text"]) for block in blocks if isinstance(block, Mapping) and "text" in block]
    return "\n".join(texts)


def _reply(asked: str, most: int) -> tuple[str, int, bool]:
    """The text, its tokens, and whether it was finished within `most` of them."""
    words = f"You asked about: {' '.join(asked.split()[-40:])}".split()
    text = " ".join(words)
    kept = len(words)
    while count_tokens(text) > most and kept > 1:
        kept -= 1
        text = " ".join(words[:kept])
    text = text[: most * 4] if count_tokens(text) > most else text
    return text, min(most, count_tokens(text)), kept == len(words)
