"""What a `defs.yaml` can name as its `type`, and what its assets need where no component tree brings it."""

from batch_assets.components.embedding_pipeline import EmbeddingPipeline
from batch_assets.components.request_queue import RequestQueue
from batch_assets.components.shared import shared_definitions

__all__ = ["EmbeddingPipeline", "RequestQueue", "shared_definitions"]
