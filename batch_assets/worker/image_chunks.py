"""A few images at a time: fetched if they are elsewhere, then decoded, in threads of two pools.

A chunk is decoded as soon as its last file has come, so that decoders never wait for the network and
a slow server holds up only what it is asked for. Files are dropped once they are decoded. How many
chunks are under way is decided in `images.py`.
"""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import numpy as np

from batch_assets.encoders.base import Encoder, ImageItem, Prepared
from batch_assets.worker.faults import describe
from batch_assets.worker.fetching import Fetcher, Fetching, is_remote
from batch_assets.worker.not_fetched import FETCH_ERROR, NotFetched
from batch_assets.worker.timings import Timings
from batch_assets.worker.windows import Loss, prepare_all

FETCH_THREADS = 64
"""Nearly all of them wait: for a store's first byte, or for servers that are slow."""

Ready = tuple[Prepared, dict[int, Loss]]
"""A chunk made ready, as `prepare_all` returns it."""


class _Chunk:
    """Images of which some are still to come; `contents` are files, or why there is none."""

    def __init__(self, images: list[bytes | str], texts: list[str]) -> None:
        self.texts = texts
        self.ready: Future[Ready] = Future()
        self.contents: list[bytes | str | Loss] = [*images]
        self.coming = sum(isinstance(image, str) and is_remote(image) for image in images)


class ImageChunks:
    """Makes chunks of images ready. End with `close`; `changed` is notified after every step of any of them."""

    def __init__(
        self, encoder: Encoder, fetching: Fetching, timings: Timings, changed: threading.Condition
    ) -> None:
        self._encoder, self._timings, self._changed = encoder, timings, changed
        self._fetcher = Fetcher(fetching)
        self._fetching = ThreadPoolExecutor(FETCH_THREADS, "fetch")
        self._decoding = ThreadPoolExecutor(encoder.prepare_threads, "prepare")
        self._lock = threading.Lock()
        self.waiting_bytes = 0
        """Bytes of files that are here and not yet decoded."""

    def start(self, images: list[bytes | str], texts: list[str]) -> "Future[Ready]":
        """Begin with a chunk of images and their captions."""
        chunk = _Chunk(images, texts)
        self._weigh(sum(len(image) for image in images if isinstance(image, bytes)))
        if not chunk.coming:
            self._decoding.submit(self._decode, chunk)
            return chunk.ready
        for position, image in enumerate(images):
            if isinstance(image, str) and is_remote(image):
                self._fetching.submit(self._fetch, chunk, position, image)
        return chunk.ready

    def stop(self) -> None:
        """Let what is under way end soon; nothing is waited for."""
        self._fetcher.stop()

    def close(self) -> None:
        """End the threads, and wait for them."""
        self.stop()
        for pool in (self._fetching, self._decoding):
            pool.shutdown(wait=True, cancel_futures=True)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _weigh(self, size: int) -> None:
        with self._lock:
            self.waiting_bytes += size

    def _fetch(self, chunk: _Chunk, position: int, location: str) -> None:
        """Fetch one file; the last one of a chunk sends it on."""
        content = self._content(location)
        if isinstance(content, bytes):
            self._weigh(len(content))
        with self._lock:
            chunk.contents[position] = content
            chunk.coming -= 1
            complete = not chunk.coming
        if complete:
            with suppress(RuntimeError):  # closed meanwhile: nobody waits for it
                self._decoding.submit(self._decode, chunk)
        self._notify()

    def _content(self, location: str) -> bytes | Loss:
        try:
            with self._timings.measure("fetch_seconds"):
                return self._fetcher.fetch(location)
        except NotFetched as error:
            return Loss(error.code, str(error), error.rejected)
        except Exception as error:  # a location is strangers' input: no surprise in it stops a shard
            return Loss(FETCH_ERROR, describe(error))

    def _decode(self, chunk: _Chunk) -> None:
        """Make a complete chunk ready, reading what lies on this machine."""
        weight = sum(len(content) for content in chunk.contents if isinstance(content, bytes))
        try:
            chunk.ready.set_result(self._prepared(chunk))
        except BaseException as error:  # told to whoever waits for the chunk
            chunk.ready.set_exception(error)
        finally:
            self._weigh(-weight)
            self._notify()

    def _prepared(self, chunk: _Chunk) -> Ready:
        contents, chunk.contents = chunk.contents, []
        items: list[ImageItem] = []
        positions: list[int] = []
        losses: dict[int, Loss] = {}
        for position, (content, text) in enumerate(zip(contents, chunk.texts, strict=True)):
            found = self._content(content) if isinstance(content, str) else content
            if isinstance(found, Loss):
                losses[position] = found
            else:
                items.append(ImageItem(found, text))
                positions.append(position)
        with self._timings.measure("prepare_seconds"):
            prepared, lost = prepare_all(self._encoder, items)
        if len(items) == len(contents):
            return prepared, lost
        inputs = [None] * len(contents)
        counts = np.zeros(len(contents), dtype=np.int32)
        for row, position in enumerate(positions):
            inputs[position], counts[position] = prepared.inputs[row], prepared.counts[row]
        losses.update({positions[row]: loss for row, loss in lost.items()})
        return Prepared(inputs, counts), losses
