"""Encoders of a few lines, whose vector of a text is told by the text."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from batch_assets.encoders.base import Prepared
from batch_assets.sources.base import Records


class FakeEncoder:
    """One token a character; the vector is (length, first character, 1). `fault` may raise, per batch."""

    takes, dimensions, dtype, device, batch_tokens, normalized = "text", 3, "float32", "cpu", 64, False
    batch_records, prepare_threads, window_records = None, 1, 4096

    def __init__(
        self, fault: Callable[[list[str]], None] = lambda texts: None, threads: int = 2, delay: float = 0
    ):
        self.fault, self.threads, self.delay = fault, threads, delay
        self.batches: list[list[str]] = []
        self.texts_tokenized = 0

    def prepare(self, texts: Sequence[str]) -> Prepared:
        self.texts_tokenized += len(texts)
        if any("untokenizable" in text for text in texts):
            raise ValueError("cannot tokenize this")
        return Prepared(list(texts), np.array([len(text) for text in texts], dtype=np.int32))

    def encode(self, inputs: Sequence[Any]) -> np.ndarray:
        self.batches.append(list(inputs))
        time.sleep(self.delay)
        self.fault(list(inputs))
        return np.array([[len(text), ord(text[0]), 1] for text in inputs], dtype=np.float32)


def make_records(texts: Sequence[str], size: int = 100) -> Iterator[Records]:
    """`texts` as consecutive batches of `size` records."""
    for first in range(0, len(texts), size):
        part = list(texts[first : first + size])
        rows = list(range(first, first + len(part)))
        columns = pa.RecordBatch.from_pydict({"text": part})
        yield Records(rows, [str(row) for row in rows], ["f.jsonl"] * len(part), rows, part, columns)


def own_threads() -> list[str]:
    """Names of the worker's threads that are alive."""
    return [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith(("read", "tokenize", "model"))
    ]
