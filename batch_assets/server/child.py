"""`batch-assets run` as a child process, and what its end means."""

import contextlib
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from batch_assets.interruptible import interruptible
from batch_assets.server.tokens import SECRET_VARIABLES

COMMAND = (sys.executable, "-c", "from batch_assets.cli import main; main()")
READ_BYTES = 64 * 1024


def without_secrets() -> dict[str, str]:
    """This process's environment without what is the server's alone."""
    return {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}


@dataclass
class Child:
    """One run of a pipeline. What it says goes to `log`, its results beside that; the next run begins both anew."""

    pipeline: str
    keys: Sequence[str]
    log: Path
    process: "subprocess.Popen[bytes]" = field(repr=False)

    @classmethod
    def start(cls, pipeline: str, keys: Sequence[str], arguments: Sequence[str], folder: Path) -> "Child":
        """Start it, in a session of its own: Ctrl-C at the server's terminal is for the server to pass on."""
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f"{pipeline}.log"
        with log.open("wb") as writing, log.with_suffix(".out").open("wb") as results:
            process = subprocess.Popen(
                interruptible([*COMMAND, "run", pipeline, *arguments]),
                env=without_secrets(),
                stdin=subprocess.DEVNULL,
                stdout=results,
                stderr=writing,
                start_new_session=True,
            )
        return cls(pipeline, keys, log, process)

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self.process.poll()

    def interrupt(self) -> None:
        """As Ctrl-C would: claims are given back, and what is committed stays."""
        self._signal(signal.SIGINT)

    def wait(self, seconds: float) -> None:
        """Until it has ended, at most so long."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)

    def kill(self) -> None:
        """End it and what it has started at once, and wait for that."""
        self._signal(signal.SIGKILL)
        self.process.wait()

    def last_line(self) -> str:
        """The last thing that it said."""
        return last_line(self.log)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def last_line(log: Path) -> str:
    """The last line of what a process has said."""
    try:
        with log.open("rb") as reading:
            reading.seek(max(reading.seek(0, os.SEEK_END) - READ_BYTES, 0))
            lines = deque((line for line in reading.read().splitlines() if line.strip()), maxlen=1)
    except OSError as error:  # what it was ordered is closed all the same
        return f"what it said cannot be read: {error}"
    return lines[0].decode("utf-8", "replace").strip().removeprefix("error: ") if lines else "it said nothing"
