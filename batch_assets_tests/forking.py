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
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from unittest import mock

from batch_assets_tests.waiting import wait_until

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

    def first_line(self) -> str:
        """The first line of stdout, as soon as it is there; what there is of it where the process ends before."""
        file = Path(self._folder.name) / "stdout"
        wait_until(lambda: self.poll() is not None or (file.exists() and "\n" in file.read_text()), self.args)
        return file.read_text().partition("\n")[0] if file.exists() else ""

    def wait_until(self, condition: Callable[[], object], told: object) -> None:
        """Until this holds, or the process has ended."""
        wait_until(lambda: condition() or self.poll() is not None, told)

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
