"""Windows: consecutive records made ready for the model, whose batches are cut by length.

Sorting within a window is what makes the texts of a batch nearly equal in length; the window's
size is what bounds the memory. How records are made ready is in `texts.py` and `images.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from batch_assets.embeddings.outcomes import Failure, Outcomes
from batch_assets.encoders.base import Encoder, Prepared
from batch_assets.sources.base import Records
from batch_assets.worker.faults import Budget, describe, is_out_of_memory


class Loss(NamedTuple):
    """Why one record has no vector; `rejected` as in `Failure`."""

    code: str
    message: str
    rejected: bool = False


@dataclass
class Window:
    """`inputs` and `counts` are as in `Prepared`, over the records of all `parts` in order.

    `failures` are by position in that order; `vectors` has a row for each position, which means
    something once its batch is encoded and no failure names it.
    """

    parts: list[Records]
    inputs: list[Any]
    counts: npt.NDArray[np.int32]
    vectors: npt.NDArray[np.float32]
    failures: dict[int, Loss] = field(default_factory=dict)

    def batches(self, budget: Budget) -> Iterator[list[int]]:
        """Positions to encode together, longest first: one, or as many as the budget allows."""
        waiting = [position for position in range(len(self.inputs)) if position not in self.failures]
        waiting.sort(key=lambda position: -int(self.counts[position]))
        yield from cut(waiting, self.counts, budget)

    def outcomes(self) -> Iterator[Outcomes]:
        """What became of each part, in order."""
        first = 0
        for part in self.parts:
            lost = {
                position - first: self.failures[position]
                for position in range(first, first + len(part))
                if position in self.failures
            }
            failures = [
                Failure(row, loss.code, loss.message, rejected=loss.rejected) for row, loss in lost.items()
            ]
            rows = np.array([row for row in range(len(part)) if row not in lost], dtype=np.int64)
            yield Outcomes(part, rows, self.vectors[rows + first], self.counts[rows + first], failures)
            first += len(part)


class Windows(Protocol):
    """Makes windows of records; one implementation for each thing that encoders take."""

    def windows(self, records: Iterator[Records]) -> Iterator[Window]: ...

    def stop(self) -> None:
        """Let what is under way end soon, from another thread."""
        ...


def cut(positions: Sequence[int], counts: npt.NDArray[np.int32], budget: Budget) -> Iterator[list[int]]:
    """Cut positions sorted by falling count into batches within the budget; a longer record goes alone."""
    batch: list[int] = []
    for position in positions:
        if batch and not budget.allows(len(batch) + 1, int(counts[batch[0]])):
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch


def prepare_all(encoder: Encoder, items: Sequence[Any]) -> tuple[Prepared, dict[int, Loss]]:
    """Make items ready, as if one by one: an item that makes the encoder raise is lost, the others are not."""
    ready = Prepared([None] * len(items), np.zeros(len(items), dtype=np.int32))
    losses: dict[int, Loss] = {}
    _prepare(encoder, items, 0, ready, losses)
    for position in np.flatnonzero(ready.counts == 0).tolist():
        losses.setdefault(position, Loss("no_tokens", f"the model makes no token of this {encoder.takes}"))
    return ready, losses


def _prepare(
    encoder: Encoder, items: Sequence[Any], first: int, ready: Prepared, losses: dict[int, Loss]
) -> None:
    """Prepare items from position `first` on; halve where the encoder raises, down to the item that makes it."""
    if not items:
        return
    try:
        prepared = encoder.prepare(items)
    except Exception as error:
        if len(items) == 1:
            code = "out_of_memory" if is_out_of_memory(error) else "model_error"
            losses[first] = Loss(code, describe(error))
            return
        middle = len(items) // 2
        _prepare(encoder, items[:middle], first, ready, losses)
        _prepare(encoder, items[middle:], first + middle, ready, losses)
        return
    ready.inputs[first : first + len(items)] = prepared.inputs
    ready.counts[first : first + len(items)] = prepared.counts
    for position, fault in prepared.faults.items():
        losses[first + position] = Loss(fault.code, fault.message, rejected=True)
