"""The reference that our vectors are held against: plain sentence-transformers in float32.

No batching, padding or precision of ours; slow, and for samples only.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from batch_assets.encoders.loading import load_model
from batch_assets.settings import ModelSettings


def reference_vectors(model: ModelSettings, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Vectors (n, dimensions) of `texts` as `SentenceTransformer.encode` makes them on the CPU."""
    return load_model(model, "cpu", "float32").encode(
        list(texts),
        prompt=model.prompt,
        truncate_dim=model.dimensions,
        normalize_embeddings=model.normalize,
        convert_to_numpy=True,
        show_progress_bar=False,
    )
