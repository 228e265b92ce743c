"""The worker in a terminal: a table of its queues that renews itself. What it logs is in `dispatch_logs.py`."""

import contextlib
import time
from collections import deque
from collections.abc import Iterator

from rich.console import Group
from rich.live import Live
from rich.table import Table

from batch_assets.cli.console import errors
from batch_assets.dispatch.consumer import Consumer
from batch_assets.dispatch.metrics import PREFIX
from batch_assets.dispatch.pool import Pool
from batch_assets.dispatch.queues.base import Ending
from batch_assets.dispatch.worker import Worker

RENEWALS_PER_SECOND = 2
RATE_SECONDS = 10.0
"""Over so long a time messages per second are told."""
COLUMNS = ("waiting", "held", "answered", "failed", "expired", "tried again", "a second", "unread")


class Status:
    """What Rich draws of a worker, each time anew."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._ended: deque[tuple[float, dict[str, int]]] = deque()

    def __rich__(self) -> Group:
        ended = {each.name: self._sum("requests_total", each) for each in self._worker.consumers}
        now = time.monotonic()
        self._ended.append((now, ended))
        while now - self._ended[0][0] > RATE_SECONDS:
            self._ended.popleft()
        table = Table("queue", box=None, pad_edge=False)
        for column in COLUMNS:
            table.add_column(column, justify="right")
        for consumer in self._worker.consumers:
            table.add_row(consumer.name, *self._row(consumer, ended[consumer.name]))
        return Group(table, *(_line(pool) for pool in self._worker.pools))

    def _row(self, consumer: Consumer, ended: int) -> Iterator[str]:
        depth = consumer.depth
        away = "away" if consumer.connection.is_away else "?"
        before_at, before = self._ended[0]
        seconds = self._ended[-1][0] - before_at
        failed = sum(
            self._sum("requests_total", consumer, result=end) for end in (Ending.FAILED, Ending.INVALID)
        )
        yield f"{depth.waiting:,}" if depth and away != "away" else away
        yield f"{depth.claimed:,}" if depth else "?"
        yield f"{self._sum('requests_total', consumer, result=Ending.COMPLETED):,}"
        yield f"{failed:,}"
        yield f"{self._sum('requests_total', consumer, result=Ending.EXPIRED):,}"
        yield f"{self._sum('retries_total', consumer):,}"
        yield f"{(ended - before[consumer.name]) / seconds:,.1f}" if seconds >= 1 else ""
        yield f"{depth.results:,}" if depth else "?"

    def _sum(self, series: str, consumer: Consumer, **labels: str) -> int:
        """A series of one queue, over all labels that are not given."""
        wanted = {"queue": consumer.name, **labels}
        return int(
            sum(
                sample.value
                for metric in self._worker.metrics.registry.collect()
                for sample in metric.samples
                if sample.name == f"{PREFIX}_{series}" and wanted.items() <= sample.labels.items()
            )
        )


def _line(pool: Pool) -> str:
    closed = [gate.name for gate in pool.gates if gate.room() < 1]
    held_back = f"; closed: {', '.join(closed)}" if closed else ""
    return f"{pool.name}: {pool.in_flight} calls in flight, {pool.caller.window.size} may be{held_back}"


@contextlib.contextmanager
def status_shown(worker: Worker) -> Iterator[None]:
    """Show the status while the block runs, where stderr is a terminal."""
    if not errors.is_terminal:
        yield
        return
    with Live(Status(worker), console=errors, refresh_per_second=RENEWALS_PER_SECOND):
        yield
