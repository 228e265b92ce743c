"""Anthropic's Claude, by its own messages format."""

from typing import Any

from batch_assets.executors.aws.answers import Answer, BadAnswer, read_count
from batch_assets.executors.bedrock.families.base import ChatFamily, member


class Claude(ChatFamily):
    """One user message a request; the answer is its text blocks."""

    name = "claude"
    prefixes = ("anthropic.claude",)

    def request(self, text: str) -> dict[str, Any]:
        return {
            "anthropic_version": "bedrock-2023-05-31",
            "max_tokens": self.answer_tokens,
            "messages": [{"role": "user", "content": [{"type": "text", "text": text}]}],
        }

    def answer(self, output: Any) -> Answer:
        return Answer(
            input_tokens=read_count(member(output, "usage", "input_tokens")),
            text=join_texts(member(output, "content")),
            output_tokens=read_count(member(output, "usage", "output_tokens")),
        )


def join_texts(blocks: Any) -> str:
    """The texts among an answer's content blocks. Raises BadAnswer where there are no blocks at all."""
    if not isinstance(blocks, list) and not hasattr(blocks, "as_list"):  # simdjson's array
        raise BadAnswer("no content in the output")
    texts = [member(block, "text") for block in blocks]
    return "".join(text for text in texts if isinstance(text, str))
