"""A shard's records through a model server: as many units under way as keep it busy, their outcomes in source order.

Calls live in the event loop of a thread of its own; whoever iterates over the outcomes waits in another.
"""

import concurrent.futures
import functools
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any, Protocol

import numpy as np

from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.executors.base import Cancelled, Progress
from batch_assets.gateway.delivery import Server
from batch_assets.sources.base import Records
from batch_assets.sources.records import empty_columns
from batch_assets.worker.ahead import Ahead
from batch_assets.worker.parts import pieces
from batch_assets.worker.run_shard import Compute

LOOK_SECONDS = 0.25
"""How often whoever waits for a slow answer hears that nothing has come, and may end the shard."""
PARTS_READ_AHEAD = 2


class Calls(Protocol):
    """What becomes of records by calls of one kind: `embeddings.py`, `answers.py`."""

    records_per_unit: int

    async def outcomes(self, server: Server, records: Records, facts: JobFacts) -> Outcomes: ...


Start = Callable[[Coroutine[Any, Any, Outcomes]], "concurrent.futures.Future[Outcomes]"]
"""Has a coroutine run in the event loop."""


def streamed(
    calls: Calls,
    server: Server,
    start: Start,
    *,
    records_per_call: int,
    is_cancelled: Callable[[], bool],
    progress: Progress | None,
) -> Compute:
    """Compute a shard's outcomes by calls. Raises Cancelled, and what the calls raise; then none goes on."""

    def compute(records: Iterator[Records], facts: JobFacts) -> Generator[Outcomes, None, None]:
        under_way: deque[tuple[int, concurrent.futures.Future[Outcomes]]] = deque()
        records_under_way = 0
        try:
            with Ahead(records, PARTS_READ_AHEAD, "read") as read:
                for unit in pieces(read, calls.records_per_unit):
                    under_way.append((len(unit), start(calls.outcomes(server, unit, facts))))
                    records_under_way += len(unit)
                    # Twice what is in flight: while the oldest unit waits for its last answer, others fill its place.
                    while (
                        records_under_way > 2 * server.window.size * records_per_call + calls.records_per_unit
                    ):
                        records_under_way -= under_way[0][0]
                        yield from _finished(under_way.popleft()[1])
            while under_way:
                yield from _finished(under_way.popleft()[1])
        finally:
            for _, future in under_way:
                future.cancel()

    def _finished(future: "concurrent.futures.Future[Outcomes]") -> Iterator[Outcomes]:
        try:
            while not concurrent.futures.wait([future], LOOK_SECONDS).done:
                if is_cancelled():
                    raise Cancelled
                yield _nothing()
            outcomes = future.result()
        finally:
            future.cancel()
        if progress is not None:
            progress(len(outcomes.records), int(outcomes.token_counts.sum(dtype=np.int64)))
        yield outcomes

    return compute


@functools.cache
def _nothing() -> Outcomes:
    """No record, so that whoever follows the run looks whether it is to go on.

    Made when it is needed first: with an array of Arrow's comes pandas, for which no code location should wait.
    """
    return Outcomes(
        Records([], [], [], [], [], empty_columns(0)),
        np.empty(0, dtype=np.int64),
        np.empty((0, 0), dtype=np.float32),
        np.empty(0, dtype=np.int32),
    )
