"""Unfinished files on a local disk: names them, and removes those whose process was killed.

The name says which process writes the file, so that a file of a killed process can be told from one that is
still being written. Where there is no /proc to ask, or the file comes from another host or container, that
cannot be known, and the file stays.
"""

import contextlib
import functools
import os
import re
import secrets
from pathlib import Path

from batch_assets.paths import UNFINISHED

_NAME = re.compile(rf"\..+\.{UNFINISHED}", re.DOTALL)
_NAMED = 60  # bytes of the finished file's name: a file system takes 255 in all


def make_temporary(target: Path) -> tuple[int, str]:
    """Create an empty hidden file beside `target`, named after this process; return its descriptor and its path.

    The first call for a folder also removes the files that killed processes have left there.
    """
    place, start = _place(), os.fsdecode(os.fsencode(target.name)[:_NAMED])
    if place is None:
        return _open_new(target.parent, f".{start}.", "")
    _clear_once(str(target.parent), os.getpid())
    return _open_new(target.parent, f".{start}.{place}-{os.getpid()}-{_started(os.getpid())}-", ".unfinished")


def _open_new(folder: Path, begin: str, end: str) -> tuple[int, str]:
    """Create a file with a random part in its name. As with any program's file, the umask decides who may read it."""
    while True:
        path = os.path.join(folder, f"{begin}{secrets.token_hex(4)}{end}")
        with contextlib.suppress(FileExistsError):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), path


def is_abandoned(name: str) -> bool:
    """Whether this is the name of an unfinished file whose process is known to have ended."""
    found = _NAME.fullmatch(name)
    if found is None or found["where"] != _place():
        return False
    started = _started(int(found["pid"]))
    return started is None or started not in ("", found["started"])


def remove_abandoned(folder: str) -> None:
    """Remove the files that killed processes have left in `folder` and below it."""
    for below, _, _ in os.walk(folder):
        _clear(below)


@functools.lru_cache(maxsize=1024)
def _clear_once(folder: str, _process: int) -> None:
    _clear(folder)


def _clear(folder: str) -> None:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if is_abandoned(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


@functools.lru_cache(maxsize=1)
def _read_place(_process: int) -> str | None:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")[5:-1]
    except OSError:
        return None
    return f"{boot.replace('-', '')[:12]}-{namespace}"


def _place() -> str | None:
    """Return within what process ids are unique: this boot of this host, and a pid namespace. None without /proc."""
    return _read_place(os.getpid())


def _started(pid: int) -> str | None:
    """Return when the process started, in clock ticks since boot; "" where that is hidden, None where it has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # another user's: it lives
    try:
        # The command's name, in parentheses, may itself hold spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return None if fields[0] in "ZX" else fields[19]
