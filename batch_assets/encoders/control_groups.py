"""How much CPU time Linux leaves this process: the quotas of its control groups, of version 1 and 2.

A group's quota holds for all that is below it, so that the smallest on the way up counts. In a container the
way ends where its own view of the groups begins.
"""

import re
from collections.abc import Iterator
from pathlib import Path

PROCESS = Path("/proc/self")
_ESCAPED = re.compile(r"\\([0-7]{3})")


def cpu_quota(process: Path = PROCESS) -> float | None:
    """The cores' worth of time that the process gets; None where nothing bounds it, or that is not to be known."""
    try:
        quotas = [_quota(group) for group in _groups(process)]
    except ValueError:  # no line as Linux writes it: an imitation of it
        return None
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(group: Path) -> float | None:
    """What one group gets: `cpu.max` is version 2's, `max` and -1 are no bound."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota, period = (
                (group / f"cpu.cfs_{name}_us").read_text(encoding="ascii").strip()
                for name in ("quota", "period")
            )
        return int(quota) / int(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _groups(process: Path) -> Iterator[Path]:
    """The folders of the groups that the process is in and that may bound its CPU time, each up to its mount."""
    for line in _lines(process / "cgroup"):
        number, controllers, path = line.split(":", 2)
        if number == "0" or "cpu" in controllers.split(","):
            for root, mount in _mounts(process, version_2=number == "0"):
                yield from _way_up(mount, root, path)


def _way_up(mount: Path, root: str, path: str) -> Iterator[Path]:
    # Where the process lies outside of what is mounted, all that is to be seen is the mount itself.
    inside = path == root or path.startswith(root.rstrip("/") + "/")
    below = path[len(root.rstrip("/")) :].strip("/") if inside else ""
    names = below.split("/") if below and ".." not in below.split("/") else []
    for depth in range(len(names), -1, -1):
        yield mount.joinpath(*names[:depth])


def _mounts(process: Path, *, version_2: bool) -> Iterator[tuple[str, Path]]:
    """Where groups are mounted, version 1's with the controller `cpu`: the group that is its root, and the folder."""
    for line in _lines(process / "mountinfo"):
        place, _, kind = line.partition(" - ")
        fields, (type_, _, options) = place.split(" "), kind.split(" ", 2)
        if type_ == "cgroup2" if version_2 else type_ == "cgroup" and "cpu" in options.split(","):
            yield _unescaped(fields[3]), Path(_unescaped(fields[4]))


def _unescaped(field: str) -> str:
    """A field of mountinfo, in which blanks are written as octal numbers."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), field)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
