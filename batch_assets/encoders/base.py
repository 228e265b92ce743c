"""What an encoder is: a loaded model that turns texts into vectors.

Reading, batching ahead of the model, and writing are the worker's business.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Tokenized:
    """Texts made ready for the model. `inputs` are opaque: one per text, for `encode` alone.

    `counts` (n) is how many tokens of each text the model sees, special ones included; 0 where
    the tokenizer made none, and such a text is not to be encoded.
    """

    inputs: list[Any]
    counts: npt.NDArray[np.int32]


class Encoder(Protocol):
    """A model in memory. Both methods may be called from several threads at once.

    `dtype` is what really computes and `dimensions` the vectors' length. `threads` calls of
    `encode` at once keep the device busy, each with about `batch_tokens` tokens, padding
    included. `normalized` says that every vector has length 1, or 0 where it has no direction.
    """

    dimensions: int
    dtype: str
    device: str
    threads: int
    batch_tokens: int
    normalized: bool

    def tokenize(self, texts: Sequence[str]) -> Tokenized:
        """Put on prompt and special tokens, truncate by the model's rule. Raises what the tokenizer raises."""
        ...

    def encode(self, inputs: Sequence[Any]) -> npt.NDArray[np.float32]:
        """Vectors (n, dimensions), float32, of some `Tokenized.inputs`. Raises what the model raises."""
        ...
