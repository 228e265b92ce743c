"""From images to windows: gathered in source order, while their chunks are fetched and decoded ahead.

A window is handed on as soon as its last chunk is ready. How far ahead others are begun is bounded:
by records, since a decoded image takes memory, and by bytes, since some files are large.
"""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from batch_assets.encoders.base import Encoder
from batch_assets.sources.base import Records
from batch_assets.worker.fetching import Fetching, is_remote
from batch_assets.worker.image_chunks import ImageChunks, Ready
from batch_assets.worker.parts import pieces
from batch_assets.worker.timings import Timings
from batch_assets.worker.windows import Loss, Window

CHUNK_IMAGES = 8
PIECE_IMAGES = 64
"""Also the first window: the model need not wait for a large one."""
AHEAD, FETCHED_AHEAD = 96, 2048
"""Images begun beyond a window; where some are fetched, one slow server must not hold up the others."""
WAITING_BYTES = 256 * 2**20


@dataclass
class _Gathered:
    """A window whose chunks are under way."""

    parts: list[Records] = field(default_factory=list)
    chunks: list["Future[Ready]"] = field(default_factory=list)
    size: int = 0

    def ready(self) -> bool:
        return all(chunk.done() for chunk in self.chunks)

    def window(self, dimensions: int) -> Window:
        """Put the chunks together, which must be ready."""
        inputs: list[Any] = []
        counts, failures = [np.zeros(0, dtype=np.int32)], dict[int, Loss]()
        for chunk in self.chunks:
            prepared, losses = chunk.result()
            failures.update({len(inputs) + row: loss for row, loss in losses.items()})
            inputs += prepared.inputs
            counts.append(prepared.counts)
        vectors = np.empty((len(inputs), dimensions), dtype=np.float32)
        return Window(self.parts, inputs, np.concatenate(counts), vectors, failures)


class ImageWindows:
    """Implements `windows.Windows` for encoders that take images."""

    def __init__(self, encoder: Encoder, fetching: Fetching, timings: Timings) -> None:
        self._encoder = encoder
        self._changed = threading.Condition()
        self._chunks = ImageChunks(encoder, fetching, timings, self._changed)
        self._closed: deque[_Gathered] = deque()
        self._fetched = False

    def stop(self) -> None:
        self._chunks.stop()

    def windows(self, records: Iterator[Records]) -> Iterator[Window]:
        """Gather records into windows and decode their images, which are taken out of the records."""
        gathered, seen = _Gathered(), 0
        try:
            for part in pieces(records, PIECE_IMAGES):
                gathered.parts.append(part)
                for images, texts in _chunks(part):
                    yield from self._make_room(gathered.size, images)
                    gathered.chunks.append(self._chunks.start(images, texts))
                gathered.size += len(part)
                seen += len(part)
                if gathered.size >= min(self._encoder.window_records, max(seen // 2, PIECE_IMAGES)):
                    self._closed.append(gathered)
                    gathered = _Gathered()
            if gathered.parts:
                self._closed.append(gathered)
            yield from self._make_room(0, None)
        finally:
            self._chunks.close()

    def _make_room(self, size: int, images: list[bytes | str] | None) -> Iterator[Window]:
        """Yield windows that are ready, until `images` may be begun; None: until none is left.

        `size` are the images begun for the window that is being gathered.
        """
        while True:
            while self._closed and self._closed[0].ready():
                yield self._closed.popleft().window(self._encoder.dimensions)
            with self._changed:
                enough = not self._closed if images is None else self._have_room(size, images)
                if enough:
                    return
                if not (self._closed and self._closed[0].ready()):
                    self._changed.wait()

    def _have_room(self, size: int, images: list[bytes | str]) -> bool:
        begun = size + sum(gathered.size for gathered in self._closed)
        self._fetched |= any(isinstance(image, str) and is_remote(image) for image in images)
        ahead = self._encoder.window_records + (FETCHED_AHEAD if self._fetched else AHEAD)
        return begun <= ahead and self._chunks.waiting_bytes <= WAITING_BYTES


def _chunks(part: Records) -> Iterator[tuple[list[bytes | str], list[str]]]:
    """The part's images and captions, some at a time; the part gives its images away."""
    assert part.images is not None, "an encoder of images needs a source of images"
    images, part.images = part.images, None
    for first in range(0, len(images), CHUNK_IMAGES):
        last = first + CHUNK_IMAGES
        taken, images[first:last] = images[first:last], [b""] * len(images[first:last])
        yield taken, part.texts[first:last]
