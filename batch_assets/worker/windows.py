"""Windows: some thousand consecutive records, tokenized, whose batches are cut by length.

Sorting within a window is what makes the texts of a batch nearly equal in length; the window's
size is what bounds the memory.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from batch_assets.embeddings.outcomes import Failure, Outcomes
from batch_assets.encoders.base import Encoder
from batch_assets.sources.base import Records
from batch_assets.worker.faults import describe

WINDOW_RECORDS = 4096
WINDOW_CHARACTERS = 32 * 2**20


@dataclass
class Window:
    """`inputs` and `counts` are as in `Prepared`, over the records of all `parts` in order.

    `failures` are positions in that order with code and message; `vectors` has a row for each
    position, which means something once its batch is encoded and no failure names it.
    """

    parts: list[Records]
    inputs: list[Any]
    counts: npt.NDArray[np.int32]
    vectors: npt.NDArray[np.float32]
    failures: dict[int, tuple[str, str]] = field(default_factory=dict)

    def batches(self, budget: int) -> Iterator[list[int]]:
        """Positions to encode together, longest first: one, or as many as make `budget` tokens with padding."""
        waiting = [position for position in range(len(self.inputs)) if position not in self.failures]
        waiting.sort(key=lambda position: -int(self.counts[position]))
        yield from cut(waiting, self.counts, budget)

    def outcomes(self) -> Iterator[Outcomes]:
        """What became of each part, in order."""
        first = 0
        for part in self.parts:
            failures = [
                Failure(position - first, *self.failures[position])
                for position in range(first, first + len(part))
                if position in self.failures
            ]
            failed = {failure.row for failure in failures}
            rows = np.array([row for row in range(len(part)) if row not in failed], dtype=np.int64)
            yield Outcomes(part, rows, self.vectors[rows + first], self.counts[rows + first], failures)
            first += len(part)


def cut(positions: Sequence[int], counts: npt.NDArray[np.int32], budget: int) -> Iterator[list[int]]:
    """Cut positions sorted by falling count into batches of at most `budget` tokens, padding included."""
    batch: list[int] = []
    for position in positions:
        if batch and (len(batch) + 1) * int(counts[batch[0]]) > budget:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch


def windows(records: Iterable[Records], encoder: Encoder) -> Iterator[Window]:
    """Gather records into windows and tokenize them."""
    parts: list[Records] = []
    size = characters = 0
    for part in records:
        parts.append(part)
        size += len(part)
        characters += sum(map(len, part.texts))
        if size >= WINDOW_RECORDS or characters >= WINDOW_CHARACTERS:
            yield _tokenize(parts, encoder)
            parts, size, characters = [], 0, 0
    if parts:
        yield _tokenize(parts, encoder)


def _tokenize(parts: list[Records], encoder: Encoder) -> Window:
    texts = [text for part in parts for text in part.texts]
    inputs: list[Any] = [None] * len(texts)
    counts = np.zeros(len(texts), dtype=np.int32)
    window = Window(parts, inputs, counts, np.empty((len(texts), encoder.dimensions), dtype=np.float32))

    def tokenize(first: int, last: int) -> None:
        """Tokenize texts[first:last]; halve where the tokenizer raises, down to the text that makes it."""
        if first == last:
            return
        try:
            tokenized = encoder.prepare(texts[first:last])
        except Exception as error:
            if last - first == 1:
                window.failures[first] = ("model_error", describe(error))
                return
            middle = (first + last) // 2
            tokenize(first, middle)
            tokenize(middle, last)
            return
        inputs[first:last] = tokenized.inputs
        counts[first:last] = tokenized.counts

    tokenize(0, len(texts))
    for position in np.flatnonzero(counts == 0).tolist():
        window.failures.setdefault(
            position, ("no_tokens", "the model's tokenizer makes no token of this text")
        )
    return window
