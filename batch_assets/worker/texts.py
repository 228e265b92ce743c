"""From texts to windows: thousands of them, tokenized by one call, whose threads are the tokenizer's own."""

from collections.abc import Iterator

import numpy as np

from batch_assets.encoders.base import Encoder
from batch_assets.sources.base import Records
from batch_assets.sources.records import bytes_without_images
from batch_assets.worker.timings import Timings
from batch_assets.worker.windows import Window, prepare_all

WINDOW_CHARACTERS = 32 * 2**20


class TextWindows:
    """Implements `windows.Windows` for encoders that take texts."""

    def __init__(self, encoder: Encoder, timings: Timings) -> None:
        self._encoder, self._timings = encoder, timings

    def stop(self) -> None:
        """Nothing: a window is soon tokenized."""

    def windows(self, records: Iterator[Records]) -> Iterator[Window]:
        """Gather records into windows and tokenize them."""
        parts: list[Records] = []
        size = characters = held = 0
        for part in records:
            parts.append(part)
            size += len(part)
            characters += sum(map(len, part.texts))
            # Ids, columns and rejections are held as long as the texts, which are usually a column too.
            held += bytes_without_images(part)
            full = characters >= WINDOW_CHARACTERS or held >= 2 * WINDOW_CHARACTERS
            if full or size >= self._encoder.window_records:
                yield self._tokenize(parts)
                parts, size, characters, held = [], 0, 0, 0
        if parts:
            yield self._tokenize(parts)

    def _tokenize(self, parts: list[Records]) -> Window:
        texts = [text for part in parts for text in part.texts]
        with self._timings.measure("prepare_seconds"):
            prepared, losses = prepare_all(self._encoder, texts)
        vectors = np.empty((len(texts), self._encoder.dimensions), dtype=np.float32)
        return Window(parts, prepared.inputs, prepared.counts, vectors, losses)
