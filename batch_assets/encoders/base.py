"""What an encoder is: a loaded model that turns texts into vectors.

Reading, batching ahead of the model, and writing are the worker's business.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt


class Encoder(Protocol):
    """A model in memory. `dtype` is what really computes; `dimensions` is the vectors' length."""

    dimensions: int
    dtype: str
    device: str

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, prompt and special tokens included, truncated by the model's rule."""
        ...

    def encode(self, token_ids: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Vectors (n, dimensions), float32, of one batch. Raises what the model raises."""
        ...
