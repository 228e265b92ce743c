"""Amazon Titan Text Embeddings V2."""

from typing import Any

from batch_assets.executors.aws.answers import Answer, BadAnswer, read_count
from batch_assets.executors.bedrock.families.base import EmbeddingFamily, member, read_vector


class TitanText(EmbeddingFamily):
    """One text a request; the model itself normalizes, where it is told to."""

    name = "titan_text"
    prefixes = ("amazon.titan-embed-text-v2",)
    known_dimensions = (1024, 512, 256)
    max_characters = 50_000
    max_tokens = 8192

    def request(self, text: str) -> dict[str, Any]:
        return {"inputText": text, "dimensions": self.dimensions, "normalize": self.normalize}

    def answer(self, output: Any) -> Answer:
        return read_titan(output, self.dimensions)


def read_titan(output: Any, dimensions: int) -> Answer:
    """A Titan model's answer, whose vector is also told by type, in V2."""
    embedding = member(output, "embedding")
    if embedding is None:
        embedding = member(output, "embeddingsByType", "float")
    if embedding is None:
        raise BadAnswer(" ".join(filter(None, ("no embedding in the output", member(output, "message")))))
    return Answer(
        read_vector(embedding, dimensions), input_tokens=read_count(member(output, "inputTextTokenCount"))
    )
