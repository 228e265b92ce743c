"""Processes of Dagster's that go on until they are ended: a webserver, a daemon."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from batch_assets_tests.waiting import PATIENCE_SECONDS


@contextmanager
def started(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs in `folder` and writes to `log`, and all that it starts, ended together."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):  # it may end its own runs first
            process.wait(15)
        with suppress(ProcessLookupError):  # its code server and its runs
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE_SECONDS)
