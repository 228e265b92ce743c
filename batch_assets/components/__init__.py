"""What a `defs.yaml` can name as its `type`."""

from batch_assets.components.embedding_pipeline import EmbeddingPipeline

__all__ = ["EmbeddingPipeline"]
