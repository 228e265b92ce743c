"""One warm child process for each pipeline that takes requests: started, started again, and ended with the server."""

import contextlib
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import (
    CHILD_FIRST_PAUSE_SECONDS,
    CHILD_LONGEST_PAUSE_SECONDS,
    CHILD_STEADY_SECONDS,
)
from batch_assets.server.child import last_line, without_secrets
from batch_assets.server.pipelines import RequestPipelines
from batch_assets.settings.pipeline import PipelineSettings

MODULE = "batch_assets.server.request_child"
LOOK_SECONDS = 1.0
END_SECONDS = 20.0
logger = plain_logger(__name__)


@dataclass
class _Computing:
    """One pipeline's child. It is started again at `again` (monotonic seconds), after a pause that grows."""

    settings: PipelineSettings
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    again: float = 0.0
    pause: float = CHILD_FIRST_PAUSE_SECONDS

    def start(self, defs: Path) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as writing:
            self.process = subprocess.Popen(
                [sys.executable, "-m", MODULE, self.settings.name, str(defs)],
                env=without_secrets(),
                stdin=subprocess.PIPE,
                stdout=writing,
                stderr=writing,
                # Ctrl-C at the server's terminal is for the server.
                start_new_session=True,
            )
        self.started = time.monotonic()

    def end(self) -> None:
        """Let it end: the shard at hand stays as it is, and is computed by whoever comes next."""
        if self.process is not None and self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()

    def wait(self, seconds: float) -> None:
        """Until it has ended; one that takes longer is killed."""
        if self.process is None:
            return
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Computing:
    """A thread that keeps the children. Used as a context."""

    def __init__(self, pipelines: RequestPipelines, defs: Path, folder: Path) -> None:
        """`folder` takes what the children say, a file for each."""
        self._pipelines = pipelines
        self._defs = defs
        self._folder = folder
        self._children: dict[str, _Computing] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="computing", daemon=True)

    def __enter__(self) -> "Computing":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ending.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._ending.is_set():
            try:
                self._look()
            except Exception as error:  # a YAML may be half written, the disk full
                logger.error("requests are not computed: %s: %s; trying again", type(error).__name__, error)
            self._ending.wait(LOOK_SECONDS)
        for child in self._children.values():
            child.end()
        until = time.monotonic() + END_SECONDS
        for child in self._children.values():
            child.wait(max(until - time.monotonic(), 0.1))

    def _look(self) -> None:
        wanted = self._pipelines.all()
        for name, child in list(self._children.items()):
            # What was changed in its YAML takes another process; one that is taken out, none.
            if name not in wanted or wanted[name].settings != child.settings:
                child.end()
                child.wait(END_SECONDS)
                del self._children[name]
        for name, pipeline in wanted.items():
            child = self._children.setdefault(
                name, _Computing(pipeline.settings, self._folder / f"{name}.requests.log")
            )
            if child.process is not None and child.process.poll() is not None:
                self._note_end(child)
            if child.process is None and time.monotonic() >= child.again:
                child.start(self._defs)

    def _note_end(self, child: _Computing) -> None:
        assert child.process is not None
        now = time.monotonic()
        if now - child.started >= CHILD_STEADY_SECONDS:
            child.pause = CHILD_FIRST_PAUSE_SECONDS
        logger.error(
            "%s: the process that computes its requests ended with %s: %s; started again in %.0f s (%s)",
            child.settings.name,
            child.process.returncode,
            last_line(child.log),
            child.pause,
            child.log,
        )
        child.process, child.again = None, now + child.pause
        child.pause = min(child.pause * 2, CHILD_LONGEST_PAUSE_SECONDS)
