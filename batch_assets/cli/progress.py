"""Long work shown while it goes: a bar on a terminal, a line now and then without one."""

import contextlib
import threading
import time
from collections.abc import Iterator

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from batch_assets.cli.console import errors

LINE_SECONDS = 10.0
RATE_SECONDS = 1.0
"""Over less time than this, records per second tell nothing: a service's results come all at once."""


class EmbeddingProgress:
    """Counts records and shows them. Safe to call from several threads."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._lock = threading.Lock()
        self._done = self._before = 0
        self._total = 0
        self._said = time.monotonic()
        self._started: float | None = None
        self._bar: Progress | None = None

    @contextlib.contextmanager
    def shown(self, total: int, done: int) -> Iterator[None]:
        """Show progress from `done` to `total` records while the block runs."""
        self._total, self._done, self._before = total, done, done
        self._started, self._said = None, time.monotonic()
        if not errors.is_terminal:
            yield
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} records  {task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
        )
        with Progress(*columns, console=errors) as self._bar:
            self._task = self._bar.add_task(self._title, total=total, completed=done, rate="")
            yield
        self._bar = None

    def __call__(self, records: int, tokens: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._done = min(self._done + records, self._total)  # a shard tried again counts once
            if self._started is None:
                # Loading the model is no embedding: what comes first only starts the clock.
                self._started, self._before = now, self._done
            seconds = now - self._started
            rate = (self._done - self._before) / seconds if seconds >= RATE_SECONDS else 0.0
            if self._bar is not None:
                self._bar.update(self._task, completed=self._done, rate=f"{rate:,.0f}/s" if rate else "")
            elif now - self._said >= LINE_SECONDS:
                self._said = now
                left = max(0, self._total - self._done) / rate if rate else 0.0
                speed = f", {rate:,.0f}/s, {left:,.0f} s left" if rate else ""
                errors.print(f"{self._title}: {self._done:,} of {self._total:,} records{speed}")

    def say(self, text: str) -> None:
        """One line, above the bar if there is one."""
        errors.print(text, markup=False, soft_wrap=True)
