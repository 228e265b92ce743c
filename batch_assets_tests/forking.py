"""Processes forked off a server that has imported what the command needs, which takes each of them seconds.

They are as real as others: own memory, own signals, killed alone. Only their imports are shared.
"""

import atexit
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from unittest import mock

PRELOADED = ["batch_assets_tests.preloading"]
# Read by libraries when they are imported, so the same for all.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"}


def forking() -> ForkServerContext:
    """The context whose processes are forked off the server; it is started by the first one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with mock.patch.dict(os.environ, ENVIRONMENT):
        multiprocessing.forkserver.ensure_running()
    return context


class CommandProcess:
    """One run of the command, with what tests use of `subprocess.Popen[str]`."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.args = ["batch-assets", *arguments]
        self._folder = tempfile.TemporaryDirectory()
        target = (list(arguments), dict(environment), os.getcwd(), self._folder.name)
        self._process = forking().Process(target=_run_command, args=target)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def first_line(self, timeout: float = 60.0) -> str:
        """The first line of stdout, as soon as it is there; what there is of it where the process ends before."""
        file, deadline = Path(self._folder.name) / "stdout", time.monotonic() + timeout
        while time.monotonic() < deadline:
            text = file.read_text() if file.exists() else ""
            if "\n" in text or self.poll() is not None:
                return text.split("\n", 1)[0]
            time.sleep(0.02)
        raise subprocess.TimeoutExpired(self.args, timeout)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; all of stdout and stderr. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        files = (Path(self._folder.name) / name for name in ("stdout", "stderr"))
        told = [file.read_text(errors="replace") if file.exists() else "" for file in files]
        self._folder.cleanup()
        return told[0], told[1]


def _run_command(arguments: list[str], environment: dict[str, str], cwd: str, folder: str) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["batch-assets", *arguments]
    from batch_assets.cli import main

    try:
        main()
    finally:
        # As an interpreter ends, which a forked process does not do by itself.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
        sys.stdout.flush()
