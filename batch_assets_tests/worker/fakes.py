"""Encoders of a few lines, whose vector of a text is told by the text."""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from batch_assets.encoders.base import Prepared
from batch_assets.sources.base import Fault, Records, Rejection


class FakeEncoder:
    """One token a character; the vector is (length, first character, 1). `fault` may raise, per batch."""

    takes: Literal["text", "image"] = "text"
    dimensions, dtype, device, batch_tokens, normalized = 3, "float32", "cpu", 64, False
    batch_records: int | None = None
    prepare_threads, window_records = 1, 4096

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


class FakeImageEncoder(FakeEncoder):
    """Images are numbers as text, of 4 tokens each; `broken` is none, and `odd` makes `prepare` raise.

    The vector is (number, length of the caption, 1).
    """

    takes, prepare_threads, window_records = "image", 2, 32

    def prepare(self, items: Sequence[Any]) -> Prepared:
        self.texts_tokenized += len(items)
        time.sleep(self.delay)
        if any(item.content == b"odd" for item in items):
            raise ZeroDivisionError("an odd image")
        faults = {
            position: Fault("broken_image", "it is broken")
            for position, item in enumerate(items)
            if item.content == b"broken"
        }
        inputs = [
            None if position in faults else (int(item.content) if item.content.isdigit() else 0, item.text)
            for position, item in enumerate(items)
        ]
        return Prepared(inputs, np.array([0 if each is None else 4 for each in inputs], np.int32), faults)

    def encode(self, inputs: Sequence[Any]) -> np.ndarray:
        self.batches.append(list(inputs))
        self.fault(list(inputs))
        return np.array([[number, len(text), 1] for number, text in inputs], dtype=np.float32)


def make_images(
    images: Sequence[bytes | str], size: int = 100, rejected: Collection[int] = ()
) -> Iterator[Records]:
    """`images` as batches of `size` records, whose captions are their numbers; those of `rejected` are bad rows."""
    for first in range(0, len(images), size):
        rows = range(first, min(first + size, len(images)))
        good = [row for row in rows if row not in rejected]
        ids = [str(row) for row in good]
        yield Records(
            good,
            ids,
            ["f.parquet"] * len(good),
            good,
            ids,
            pa.RecordBatch.from_pydict({"row": pa.array(good, pa.int64())}),
            [Rejection(row, str(row), "f.parquet", row, "no_image", "") for row in rows if row in rejected],
            [images[row] for row in good],
        )


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
        if thread.name.startswith(("read", "windows", "prepare", "fetch", "model"))
    ]
