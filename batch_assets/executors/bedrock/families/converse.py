"""Chat models of any make, by Bedrock's own Converse format."""

from typing import Any

from batch_assets.executors.aws.answers import Answer, read_count
from batch_assets.executors.bedrock.families.base import ChatFamily, member
from batch_assets.executors.bedrock.families.claude import join_texts


class Converse(ChatFamily):
    """One user message a request; the answer is its text blocks."""

    name = "converse"
    prefixes = (
        "amazon.nova-", "ai21.jamba", "cohere.command", "deepseek.", "google.gemma", "meta.llama", "mistral.",
        "openai.gpt-oss", "qwen.", "writer.palmyra",
    )  # fmt: skip
    invocation_type = "Converse"

    def request(self, text: str) -> dict[str, Any]:
        return {
            "messages": [{"role": "user", "content": [{"text": text}]}],
            "inferenceConfig": {"maxTokens": self.answer_tokens},
        }

    def answer(self, output: Any) -> Answer:
        return Answer(
            input_tokens=read_count(member(output, "usage", "inputTokens")),
            text=join_texts(member(output, "output", "message", "content")),
            output_tokens=read_count(member(output, "usage", "outputTokens")),
        )
