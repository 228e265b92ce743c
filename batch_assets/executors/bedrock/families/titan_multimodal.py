"""Amazon Titan Multimodal Embeddings G1, of texts alone."""

from typing import Any

from batch_assets.executors.aws.answers import Answer
from batch_assets.executors.bedrock.families.base import EmbeddingFamily
from batch_assets.executors.bedrock.families.titan_text import read_titan


class TitanMultimodal(EmbeddingFamily):
    """One text a request.

    Only tokens are limited. Eight characters for each is more than any ordinary text has, so
    what is cut there, or refused, is too long indeed; the rest is left to the model.
    """

    name = "titan_multimodal"
    prefixes = ("amazon.titan-embed-image-v1",)
    known_dimensions = (1024, 384, 256)
    max_characters = 2048
    max_tokens = 256

    def request(self, text: str) -> dict[str, Any]:
        return {"inputText": text, "embeddingConfig": {"outputEmbeddingLength": self.dimensions}}

    def answer(self, output: Any) -> Answer:
        return read_titan(output, self.dimensions)
