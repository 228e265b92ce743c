"""Containers as processes of this machine: a bounded number at once, each in a group and a folder of its own.

They get the environment that a container would have, and nothing else of this process's.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

# What a container has of its image: paths, and how libraries find models and cores.
IMAGE_VARIABLES = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS",
    "SSL_CERT_FILE",
)
IMAGE_PREFIXES = ("HF_", "TRANSFORMERS_", "TORCH_", "TOKENIZERS_", "CUDA_", "NVIDIA_")
TOLD_BYTES = 2_000


@dataclass(slots=True, eq=False)
class Process:
    """One container. `killed_after`, `limit`: real seconds until it is killed by a fault, by its timeout.

    When it has ended, `done` is called with it: `exit_code` is None if it never began.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    name: str
    done: Callable[["Process"], None]
    began: Callable[[], None]
    killed_after: float | None = None
    limit: float | None = None
    twice: bool = False
    exit_code: int | None = None
    timed_out: bool = False
    killed: bool = False  # by `kill`
    unstartable: bool = False  # there is no such program
    running: "subprocess.Popen[bytes] | None" = None


class Processes:
    """Runs them, in order of arrival, as many at once as `at_once` says at that moment."""

    def __init__(self, at_once: Callable[[], int]) -> None:
        self._at_once = at_once
        self._folder = tempfile.TemporaryDirectory(prefix="rehearsal-batch-", ignore_cleanup_errors=True)
        self._lock = threading.Lock()
        self._waiting: deque[Process] = deque()
        self._alive: set[subprocess.Popen[bytes]] = set()
        self._threads: set[threading.Thread] = set()
        self._closed = False

    def start(self, process: Process) -> None:
        with self._lock:
            self._waiting.append(process)
        self._dispatch()

    def kill(self, process: Process) -> None:
        """End it now, or before it begins; `done` is called all the same."""
        with self._lock:
            process.killed = True
            waits = process in self._waiting
            if waits:
                self._waiting.remove(process)
            elif process.running:
                _kill(process.running)
        if waits:
            process.done(process)

    @property
    def alive(self) -> int:
        """How many run at this moment, twins among them."""
        return len(self._alive)

    def log(self, name: str) -> str:
        """The end of what a process has said."""
        with contextlib.suppress(OSError):
            return self._log_file(name).read_bytes()[-TOLD_BYTES:].decode(errors="replace")
        return ""

    def close(self) -> None:
        """Kill all of them."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            for running in self._alive:
                _kill(running)
            threads = list(self._threads)
        for thread in threads:
            thread.join()
        self._folder.cleanup()

    def _dispatch(self) -> None:
        with self._lock:
            while self._waiting and len(self._threads) < self._at_once() and not self._closed:
                process = self._waiting.popleft()
                thread = threading.Thread(target=self._run, args=(process,), name=f"rehearsal-{process.name}")
                self._threads.add(thread)
                thread.start()

    def _run(self, process: Process) -> None:
        twin = None
        try:
            running = self._spawn(process, process.name)
            if running:
                twin = self._spawn(process, f"{process.name}-twin") if process.twice else None
                self._wait(process, running)
            if not self._closed:
                process.done(process)
            if twin:
                twin.wait()  # a ghost: nobody asks how it ends
        finally:
            with self._lock:
                self._alive.discard(twin) if twin else None
                self._threads.discard(threading.current_thread())
            self._dispatch()

    def _spawn(self, process: Process, name: str) -> "subprocess.Popen[bytes] | None":
        folder = Path(self._folder.name) / name.replace(":", "_")
        command = [sys.executable if word in ("python", "python3") and not place else word
                   for place, word in enumerate(process.command)]  # fmt: skip
        with self._lock:
            if self._closed or process.killed:
                return None
            folder.mkdir(parents=True, exist_ok=True)
            with self._log_file(name).open("wb") as log:
                try:
                    running = begin_process(command, process.environment, folder, log)
                except OSError as error:
                    log.write(f"{error}\n".encode())
                    process.unstartable = True
                    return None
            self._alive.add(running)
            if name == process.name:
                process.running = running
        process.began()
        return running

    def _wait(self, process: Process, running: "subprocess.Popen[bytes]") -> None:
        due = [seconds for seconds in (process.killed_after, process.limit) if seconds is not None]
        began = time.monotonic()
        try:
            running.wait(min(due) if due else None)
        except subprocess.TimeoutExpired:
            process.timed_out = process.limit is not None and time.monotonic() - began >= process.limit
            _kill(running)
            running.wait()
        code = running.returncode
        with self._lock:
            process.exit_code = 128 - code if code < 0 else code  # as a shell tells of signals
            process.running = None
            self._alive.discard(running)

    def _log_file(self, name: str) -> Path:
        return Path(self._folder.name) / f"{name.replace(':', '_')}.log"


def begin_process(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, log: BinaryIO
) -> "subprocess.Popen[bytes]":
    """Start a program that leads a process group of its own. Raises OSError where there is none."""
    return subprocess.Popen(
        command,
        env=dict(environment),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def image_environment() -> dict[str, str]:
    """What a container's image would bring: the way to its programs and models."""
    found = {
        name: value
        for name, value in os.environ.items()
        if name in IMAGE_VARIABLES or name.startswith(IMAGE_PREFIXES)
    }
    return found | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{found.get('PATH', os.defpath)}"}


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """The whole group, if it still is one."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
