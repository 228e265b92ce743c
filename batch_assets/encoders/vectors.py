"""The end of every model's way: its output as the vectors that are stored."""

from typing import Any

import numpy as np
import numpy.typing as npt

from batch_assets.settings.model import ModelSettings


def finished(vectors: Any, settings: ModelSettings) -> npt.NDArray[np.float32]:
    """A tensor (n, width) in float32, cut to the settings' dimensions, normalized, and copied off its device."""
    import torch

    vectors = vectors[:, : settings.dimensions]
    if settings.normalize:
        vectors = torch.nn.functional.normalize(vectors, p=2, dim=1)
    return np.ascontiguousarray(vectors.cpu().numpy())
