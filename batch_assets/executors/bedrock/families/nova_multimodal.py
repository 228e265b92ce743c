"""Amazon Nova Multimodal Embeddings, of texts alone."""

from typing import Any

from batch_assets.executors.aws.answers import Answer, BadAnswer, read_count
from batch_assets.executors.bedrock.families.base import EmbeddingFamily, member, read_vector


class NovaMultimodal(EmbeddingFamily):
    """One text a request, for an index or to search it. The model itself truncates, or refuses, by tokens."""

    name = "nova_multimodal"
    prefixes = ("amazon.nova-2-multimodal-embeddings",)
    known_dimensions = (3072, 1024, 384, 256)
    max_characters = 50_000
    max_tokens = 8172

    def request(self, text: str) -> dict[str, Any]:
        return self._request(text, "GENERIC_INDEX")

    def query(self, text: str) -> dict[str, Any]:
        return self._request(text, "TEXT_RETRIEVAL")

    def _request(self, text: str, purpose: str) -> dict[str, Any]:
        return {
            "schemaVersion": "nova-multimodal-embed-v1",
            "taskType": "SINGLE_EMBEDDING",
            "singleEmbeddingParams": {
                "embeddingPurpose": purpose,
                "embeddingDimension": self.dimensions,
                "text": {"truncationMode": "END" if self.truncate else "NONE", "value": text},
            },
        }

    def answer(self, output: Any) -> Answer:
        embedding = member(output, "embeddings", 0, "embedding")
        if embedding is None:
            raise BadAnswer("no embedding in the output")
        # Of tokens the documented answer says nothing: the job's manifest does.
        return Answer(
            read_vector(embedding, self.dimensions),
            input_tokens=read_count(member(output, "inputTextTokenCount")),
        )
