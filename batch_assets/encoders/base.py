"""What an encoder is: a loaded model that turns records into vectors.

Reading, fetching, batching ahead of the model, and writing are the worker's business. Which
encoder a pipeline has is decided in `registry.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from batch_assets.sources.base import Fault


class ImageItem(NamedTuple):
    """What an encoder that takes images is given of a record: a whole image file, and its caption or ""."""

    content: bytes
    text: str = ""


@dataclass(frozen=True)
class Prepared:
    """Records made ready for the model. `inputs` are opaque: one per record, for `encode` alone.

    `counts` (n) is how many tokens of each the model sees, special ones included, of an image its
    patches; 0 where there are none, and such a record is not to be encoded. `faults` are the
    positions of items that are no input at all, such as broken images, or texts of which the
    tokenizer leaves nothing; their count is 0.
    """

    inputs: list[Any]
    counts: npt.NDArray[np.int32]
    faults: dict[int, Fault] = field(default_factory=dict)


class Encoder(Protocol):
    """A model in memory. Both methods may be called from several threads at once.

    `takes` says what `prepare` is given: texts (str), or images (ImageItem). `dtype` is what really
    computes and `dimensions` the vectors' length. `threads` calls of `encode` at once keep the
    device busy, each with about `batch_tokens` tokens, padding included, and at most `batch_records`
    records (None: as many as fit). `prepare_threads` calls of `prepare` at once are worth it, and
    `window_records` prepared records are what memory is planned for. `normalized` says that every
    vector has length 1, or 0 where it has no direction.
    """

    takes: Literal["text", "image"]
    dimensions: int
    dtype: str
    device: str
    threads: int
    batch_tokens: int
    batch_records: int | None
    prepare_threads: int
    window_records: int
    normalized: bool

    def prepare(self, items: Sequence[Any]) -> Prepared:
        """Tokenize texts, or decode images, by the model's rule. Raises what the tokenizer raises."""
        ...

    def encode(self, inputs: Sequence[Any]) -> npt.NDArray[np.float32]:
        """Vectors (n, dimensions), float32, of some `Prepared.inputs`. Raises what the model raises."""
        ...
