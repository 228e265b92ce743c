"""The way of one shard through the machine: reader → tokenizer or decoder → model → outcomes, all at once.

Each stage runs in threads of its own, a bounded number of items ahead; whoever consumes the
outcomes (the shard writer) works while the model does. What a record, a token or a vector is
belongs to the stages.
"""

import contextlib
import ctypes
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.encoders.base import Encoder
from batch_assets.sources.base import Records
from batch_assets.worker.ahead import Ahead
from batch_assets.worker.encoding import BatchEncoder
from batch_assets.worker.faults import Budget
from batch_assets.worker.fetching import Fetching
from batch_assets.worker.images import ImageWindows
from batch_assets.worker.texts import TextWindows
from batch_assets.worker.timings import Timings
from batch_assets.worker.windows import Window, Windows

PARTS_READ_AHEAD, WINDOWS_AHEAD, WINDOWS_AT_THE_MODEL = 2, 1, 2

Progress = Callable[[int, int], None]
"""Called with (records, tokens) done since the last call, in the consumer's thread."""


def embed(
    records: Iterable[Records],
    encoder: Encoder,
    *,
    batch_tokens: int | None = None,
    batch_records: int | None = None,
    fetching: Fetching | None = None,
    timings: dict[str, float] | None = None,
    progress: Progress | None = None,
) -> Iterator[Outcomes]:
    """Embed `records`; yields Outcomes in order: one for each Records, of images for a part of one.

    `batch_tokens` and `batch_records` are the most in a batch, tokens with padding; None is what
    suits the encoder and its device. `fetching` says how images are had that records only name.
    `timings` gets the seconds of the stages, added up over their threads: `fetch_seconds`,
    `prepare_seconds` (tokenizing, decoding) and `model_seconds`.

    A record that the model cannot embed is a Failure (`model_error`, `out_of_memory`, `non_finite`,
    `zero_norm`, `no_tokens`, and the codes of the encoder's faults, such as `invisible_text`; an image
    also those of `not_fetched.py`); an error of the source, or one that every record would
    meet, is raised. Closing the generator ends all threads.
    """
    measured = Timings({} if timings is None else timings)
    budget = Budget(batch_tokens or encoder.batch_tokens, batch_records or encoder.batch_records)
    batches = BatchEncoder(encoder, budget, measured)
    feed: Windows = TextWindows(encoder, measured)
    if encoder.takes == "image":
        feed = ImageWindows(encoder, fetching or Fetching(), measured)
    with (
        Ahead(records, PARTS_READ_AHEAD, "read") as read,
        Ahead(feed.windows(iter(read)), WINDOWS_AHEAD, "windows") as prepared,
        ThreadPoolExecutor(encoder.threads, "model") as pool,
    ):
        running: deque[_Started] = deque()
        try:
            for window in prepared:
                running.append(_Started(window, batches, pool))
                if len(running) == WINDOWS_AT_THE_MODEL:
                    yield from running.popleft().finish(progress)
            while running:
                yield from running.popleft().finish(progress)
        finally:
            # All at once: each stage may be waiting for the one before it.
            for stage in (read, feed, prepared, batches):
                stage.stop()
            pool.shutdown(wait=True, cancel_futures=True)
    _return_memory()


def _return_memory() -> None:
    """Give what the shard's threads have freed back to the system.

    glibc keeps it for each thread that ever was, so that a process grows for some shards on end.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


class _Started:
    """A window whose batches are at the model threads or waiting for them."""

    def __init__(self, window: Window, batches: BatchEncoder, pool: ThreadPoolExecutor) -> None:
        self._window = window
        self._batches: list[tuple[list[int], Future[None]]] = [
            (positions, pool.submit(batches.encode, window, positions))
            for positions in window.batches(batches.budget)
        ]

    def finish(self, progress: Progress | None) -> Iterator[Outcomes]:
        """Wait for the batches in the order they were given out, then yield the window's outcomes."""
        unencoded = len(self._window.inputs) - sum(len(positions) for positions, _ in self._batches)
        if progress is not None and unencoded:
            progress(unencoded, 0)
        for positions, future in self._batches:
            future.result()
            if progress is not None:
                progress(len(positions), int(self._window.counts[positions].sum()))
        yield from self._window.outcomes()
