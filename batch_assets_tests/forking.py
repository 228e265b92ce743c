"""Processes forked off a server that has imported what the command needs, which takes each of them seconds.

They are as real as others: own memory, own signals, killed alone. Only their imports are shared.
"""

import atexit
import contextlib
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.process
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any
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


@dataclass(frozen=True)
class Place:
    """The folder in which a program runs, and the files that its output goes to."""

    folder: str
    stdout: str
    stderr: str


class CommandProcess:
    """One run of the command, with what tests use of `subprocess.Popen[str]`."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        run: Callable[[], object] | None = None,
    ) -> None:
        self.args = ["batch-assets", *arguments]
        self._folder = tempfile.TemporaryDirectory()
        place = Place(os.getcwd(), f"{self._folder.name}/stdout", f"{self._folder.name}/stderr")
        self._process = start_process(_run, (run or run_command, self.args, dict(environment), place))

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

    def told(self) -> str:
        """Stderr as it is by now."""
        file = Path(self._folder.name) / "stderr"
        return file.read_text(errors="replace") if file.exists() else ""

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


class ForkedProgram:
    """A Python program in a process group of its own, with what tests use of `subprocess.Popen[bytes]`.

    Any number of threads may ask it: one of its own waits for its end.
    """

    def __init__(
        self,
        run: Callable[[], object],
        arguments: Sequence[str],
        environment: Mapping[str, str],
        place: Place,
    ) -> None:
        self.args = list(arguments)
        self.returncode: int | None = None
        self._ended = threading.Event()
        leads, begun = forking().Pipe(duplex=False)
        process = start_process(_run_leader, (begun, run, self.args, dict(environment), place))
        begun.close()
        with contextlib.suppress(EOFError):
            leads.recv()  # before that the group to kill is not there
        leads.close()
        self.pid = process.pid
        threading.Thread(target=self._wait_for, args=(process,), daemon=True).start()

    def _wait_for(self, process: ForkServerProcess) -> None:
        process.join()
        self.returncode = process.exitcode
        self._ended.set()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, negative for a signal. Raises subprocess.TimeoutExpired."""
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        assert self.returncode is not None
        return self.returncode


_starting = threading.Lock()


def start_process(target: Callable[..., object], arguments: tuple[Any, ...]) -> ForkServerProcess:
    """Start a process that multiprocessing does not look after.

    With each start it polls every process that it looks after. A process has its exit code read once: a thread that
    waits for it meanwhile finds none left, and gets 255.
    """
    context = forking()
    with _starting:
        process = context.Process(target=target, args=arguments)
        process.start()
        multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]
    return process


def _run_leader(
    begun: Connection,
    run: Callable[[], object],
    arguments: list[str],
    environment: dict[str, str],
    place: Place,
) -> None:
    os.setsid()
    begun.send(True)
    begun.close()
    _run(run, arguments, environment, place)


def _run(run: Callable[[], object], arguments: list[str], environment: dict[str, str], place: Place) -> None:
    """Become a program that was started anew: its output, environment, folder, arguments, and end."""
    for number, name in ((1, place.stdout), (2, place.stderr)):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(place.folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = arguments
    try:
        sys.exit(run())
    finally:
        # As an interpreter ends, which a forked process does not do by itself.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
        sys.stdout.flush()


def run_command() -> object:
    """The program `batch-assets`."""
    from batch_assets.cli import main

    return main()


def run_worker() -> int:
    """The program `python -m batch_assets.worker`."""
    from batch_assets.worker.__main__ import main

    return main()
