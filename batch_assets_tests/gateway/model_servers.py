"""Starts the model server for a test, as a process of its own, and reads what it did.

The process ends with the block, and with this process however that ends.
"""

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from batch_assets_tests.gateway.books import Entry, computed, read_books
from batch_assets_tests.gateway.scenario import Scenario
from batch_assets_tests.waiting import PATIENCE_SECONDS


class RunningServer:
    """A model server that keeps its port and its books over restarts."""

    def __init__(self, folder: Path, scenario: Scenario, *, books: bool = True) -> None:
        self._folder, self._process, self._port = folder, None, 0
        self._books = folder / "books.jsonl" if books else None
        self.start(scenario)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, scenario: Scenario) -> None:
        """Start it after it has ended, and wait until it listens."""
        assert self._process is None, "it is still running: end it first"
        file = self._folder / "scenario.json"
        file.write_text(scenario.model_dump_json())
        command = [sys.executable, "-m", "batch_assets_tests.gateway.model_server", "--end-with-stdin"]
        command += ["--port", str(self._port), "--scenario", str(file)]
        command += ["--books", str(self._books)] if self._books else []
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
        )
        line = cast(IO[bytes], self._process.stdout).readline().decode().strip()
        if not line:
            self.wait_ended()
            raise AssertionError("the model server ended before it listened; what it said is on stderr")
        self._port = int(line.rpartition(":")[2])

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it: politely, or by SIGKILL as the kernel would."""
        assert self._process is not None, "it has ended"
        self._process.send_signal(number)
        self.wait_ended()

    def wait_ended(self) -> int:
        """Wait until it has ended, by itself or by a crash; returns its exit status."""
        assert self._process is not None, "it has ended"
        status = self._process.wait(PATIENCE_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            cast(IO[bytes], pipe).close()
        self._process = None
        return status

    def restart(self, scenario: Scenario, number: signal.Signals = signal.SIGTERM) -> None:
        """Another process on the same port, whether or not the last one still ran."""
        if self._process is not None:
            self.end(number)
        self.start(scenario)

    def entries(self) -> list[Entry]:
        """The books, of all its processes."""
        assert self._books is not None, "it keeps no books"
        return read_books(self._books)

    def computed(self) -> Counter[str]:
        """How often each input was computed, by `computing.digest_of` of its text."""
        return computed(self.entries())

    def close(self) -> None:
        if self._process is not None:
            self.end(signal.SIGKILL)


@contextmanager
def model_server(
    folder: Path, scenario: Scenario | None = None, *, books: bool = True
) -> Iterator[RunningServer]:
    """A server that runs while the block does; `folder` takes its scenario and its books."""
    server = RunningServer(folder, scenario or Scenario(), books=books)
    try:
        yield server
    finally:
        server.close()
