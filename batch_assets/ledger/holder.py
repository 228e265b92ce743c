"""Who holds a claim: one process, named so that another can tell whether it still lives.

What is held, and until when, belongs to `claims.py` and `leases.py`.
"""

import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

# The kernel gives the first PID namespace this fixed inode (PROC_PID_INIT_INO).
_FIRST_NAMESPACE = "pid:[4026531836]"
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class Holder:
    """One process on one boot of one host.

    `started` tells two processes with the same pid apart: clock ticks since boot where there
    is a /proc, else the start time that `ps` shows. `boot_id` ends in `+<inode>` inside a PID
    namespace of its own (a container): the pids of another namespace cannot be seen, so
    nothing is said about them. Nor is anything said about another boot: two machines may have
    one name, and whether this one was rebooted cannot be told from there being two.
    """

    host: str
    boot_id: str
    pid: int
    started: str

    @classmethod
    def current(cls) -> "Holder":
        """This process."""
        pid = os.getpid()
        return cls(socket.gethostname(), _boot_id(), pid, _started(pid) or "")

    def is_dead_here(self) -> bool:
        """True only where this very boot of this host can tell that there is no such process any more.

        False means alive, or elsewhere: on another host, another boot, or in another container.
        There only an expired lease tells.
        """
        if not self.could_be_seen_here():
            return False
        started = _started(self.pid)
        if started is None:
            return True
        return bool(started and self.started) and started != self.started

    def could_be_seen_here(self) -> bool:
        """Whether the process, if it lives, is one of those that this one can see."""
        return (self.host, self.boot_id) == (socket.gethostname(), _boot_id()) and self.boot_id != _UNKNOWN

    def encode(self) -> str:
        """One line: host/boot/pid/started."""
        return f"{self.host}/{self.boot_id}/{self.pid}/{self.started}"

    @classmethod
    def decode(cls, text: str) -> "Holder":
        """The holder that `encode` wrote; ValueError for anything else."""
        parts = text.rsplit("/", 3)
        if len(parts) != 4:
            raise ValueError(f"{text!r} is no holder: expected host/boot/pid/started")
        return cls(parts[0], parts[1], int(parts[2]), parts[3])

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"


def _boot_id() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return _ask("sysctl", "-n", "kern.bootsessionuuid") or _UNKNOWN
    return boot if namespace == _FIRST_NAMESPACE else f"{boot}+{namespace[5:-1]}"


def _started(pid: int) -> str | None:
    """When the process started; None if there is no such process, "" if that cannot be told."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # another user's: it lives, and /proc may hide it
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        status, _, started = _ask("ps", "-o", "stat=,lstart=", "-p", str(pid)).partition(" ")
        return None if status.startswith("Z") else started.strip()
    # The command's name, in parentheses, may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    # A zombie computes nothing any more; it waits for its parent to read its exit status.
    return None if fields[0] in "ZX" else fields[19]


def _ask(*command: str) -> str:
    """What a command prints, in one line; "" where there is no such command."""
    environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    try:
        answer = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    except OSError:
        return ""
    return answer.stdout.strip()
