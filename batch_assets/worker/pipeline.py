"""The way of one shard through the machine: reader → tokenizer → model → outcomes, all at once.

Each stage runs in threads of its own, a bounded number of items ahead; whoever consumes the
outcomes (the shard writer) works while the model does. What a record, a token or a vector is
belongs to the stages.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.encoders.base import Encoder
from batch_assets.sources.base import Records
from batch_assets.worker.ahead import Ahead
from batch_assets.worker.encoding import BatchEncoder
from batch_assets.worker.faults import Budget
from batch_assets.worker.windows import Window, windows

PARTS_READ_AHEAD, WINDOWS_AHEAD, WINDOWS_AT_THE_MODEL = 2, 1, 2

Progress = Callable[[int, int], None]
"""Called with (records, tokens) done since the last call, in the consumer's thread."""


def embed(
    records: Iterable[Records],
    encoder: Encoder,
    *,
    batch_tokens: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Outcomes]:
    """Embed `records`; yields one Outcomes for each Records, in order.

    `batch_tokens` is the most tokens in a batch, padding included; None is what suits the
    encoder's device. A record that the model cannot embed is a Failure (`model_error`,
    `out_of_memory`, `non_finite`, `zero_norm`, `no_tokens`); an error of the source, or one that
    every record would meet, is raised. Closing the generator ends all threads.
    """
    batches = BatchEncoder(encoder, Budget(batch_tokens or encoder.batch_tokens))
    with (
        Ahead(records, PARTS_READ_AHEAD, "read") as read,
        Ahead(windows(read, encoder), WINDOWS_AHEAD, "tokenize") as tokenized,
        ThreadPoolExecutor(encoder.threads, "model") as pool,
    ):
        running: deque[_Started] = deque()
        try:
            for window in tokenized:
                running.append(_Started(window, batches, pool))
                if len(running) == WINDOWS_AT_THE_MODEL:
                    yield from running.popleft().finish(progress)
            while running:
                yield from running.popleft().finish(progress)
        finally:
            # All at once: each stage may be waiting for the one before it.
            for stage in (read, tokenized, batches):
                stage.stop()
            pool.shutdown(wait=True, cancel_futures=True)


class _Started:
    """A window whose batches are at the model threads or waiting for them."""

    def __init__(self, window: Window, batches: BatchEncoder, pool: ThreadPoolExecutor) -> None:
        self._window = window
        self._batches: list[tuple[list[int], Future[None]]] = [
            (positions, pool.submit(batches.encode, window, positions))
            for positions in window.batches(batches.budget.tokens)
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
