"""Encoding one batch so that a bad record costs that record only."""

import io
import threading
from collections.abc import Sequence

import numpy as np

from batch_assets.encoders.base import Encoder, ImageItem
from batch_assets.errors import ModelError
from batch_assets.worker.faults import Breaker, Budget, describe, is_out_of_memory
from batch_assets.worker.timings import Timings
from batch_assets.worker.windows import Loss, Window, cut


class BatchEncoder:
    """Puts vectors and failures into windows. `encode` may run in several threads on disjoint positions."""

    def __init__(self, encoder: Encoder, budget: Budget, timings: Timings) -> None:
        self._encoder = encoder
        self.budget = budget
        self._timings = timings
        self._breaker = Breaker()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let running calls end after the batch they are at."""
        self._stopped.set()

    def encode(self, window: Window, positions: Sequence[int]) -> None:
        """Encode `positions` of `window`, sorted by falling count: whole, in parts that fit, or one by one.

        Raises only what is no record's fault.
        """
        if self._stopped.is_set():
            return
        tokens = len(positions) * int(window.counts[positions[0]])
        if tokens > self.budget.tokens and len(positions) > 1:
            for part in list(cut(positions, window.counts, self.budget)):
                self.encode(window, part)
            return
        try:
            with self._timings.measure("model_seconds"):
                vectors = self._encoder.encode([window.inputs[position] for position in positions])
        except Exception as error:
            self._after(error, window, positions, tokens)
            return
        window.vectors[positions] = vectors
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        for position, length in zip(positions, lengths, strict=True):
            if not np.isfinite(length):
                self._fail(window, position, "non_finite", ModelError(self._not_finite()))
            elif length == 0 and self._encoder.normalized:
                self._fail(
                    window, position, "zero_norm", ModelError("the vector is all zeros: it has no direction")
                )
            else:
                self._breaker.success()

    def _after(self, error: Exception, window: Window, positions: Sequence[int], tokens: int) -> None:
        """Try again with less: the budget's parts where memory ran out, else the two halves."""
        out_of_memory = is_out_of_memory(error)
        if out_of_memory:
            self.budget.lower(tokens)
        if len(positions) == 1:
            self._fail(window, positions[0], "out_of_memory" if out_of_memory else "model_error", error)
            return
        middle = len(positions) // 2
        for half in (positions[:middle], positions[middle:]):
            self.encode(window, half)

    def _fail(self, window: Window, position: int, code: str, error: Exception) -> None:
        text = str(error) if isinstance(error, ModelError) else describe(error)
        window.failures[position] = Loss(code, text)
        self._breaker.failure(error, lambda: self._works(window))

    def _not_finite(self) -> str:
        dtype = self._encoder.dtype
        remedy = "" if dtype == "float32" else "; set model.dtype to float32"
        return f"the model's vector in {dtype} is not finite{remedy}"

    def _works(self, window: Window) -> bool:
        """Whether the model embeds a trivial record and, if it has embedded nothing yet, the window's shortest.

        The longest texts come first: that a row of them fails does not condemn the others.
        """
        waiting = [each for each in np.flatnonzero(window.counts) if each not in window.failures]
        try:
            inputs = self._encoder.prepare([trivial_record(self._encoder)]).inputs
            if waiting and not self._breaker.succeeded:
                inputs.append(window.inputs[min(waiting, key=lambda position: window.counts[position])])
            return all(bool(np.isfinite(self._encoder.encode([each])).all()) for each in inputs)
        except Exception:  # whatever it is: the model does not even do this
            return False


def trivial_record(encoder: Encoder) -> str | ImageItem:
    """A record that every model embeds which embeds any."""
    if encoder.takes == "text":
        return "a"
    from PIL import Image

    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "PNG")
    return ImageItem(file.getvalue(), "a")
