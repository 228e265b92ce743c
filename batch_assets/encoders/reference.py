"""The reference that our vectors are held against: plain sentence-transformers in float32.

No batching, padding or precision of ours; slow, and for samples only.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from batch_assets.encoders.weights import locate_model
from batch_assets.settings import ModelSettings


def reference_vectors(model: ModelSettings, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Vectors (n, dimensions) of `texts` as `SentenceTransformer.encode` makes them on the CPU."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    options: dict[str, Any] = {"torch_dtype": torch.float32, "use_safetensors": True}
    reference = SentenceTransformer(
        str(locate_model(model)),
        device="cpu",
        truncate_dim=model.dimensions,
        trust_remote_code=model.trust_remote_code,
        model_kwargs=options,
    )
    if model.max_tokens is not None:
        reference.max_seq_length = min(model.max_tokens, reference.max_seq_length or model.max_tokens)
    return reference.encode(
        list(texts),
        prompt=model.prompt,
        normalize_embeddings=model.normalize,
        convert_to_numpy=True,
        show_progress_bar=False,
    )
