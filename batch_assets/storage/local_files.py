"""Opening a file of this machine, to read it, and what is said where the disk refuses."""

import contextlib
import errno
import io
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from batch_assets.errors import LastingStorageError, StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


def open_regular(path: Path) -> io.FileIO:
    """A file to read, without a buffer; StorageError where there is something else in its place."""
    # Whoever opens a pipe otherwise waits for its writer.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        refuse_irregular(path, os.fstat(handle))
        return io.FileIO(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def refuse_irregular(path: Path, status: os.stat_result) -> None:
    """Raise StorageError for a folder, and for a pipe or a device, whose reading may never end."""
    if not stat.S_ISREG(status.st_mode):
        raise LastingStorageError(
            f"{path}: is no regular file; remove what lies there, then restore the file from a copy"
        )


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Put what the disk refuses into one sentence; what callers expect of a path stays as it is."""
    try:
        yield
    except (FileNotFoundError, FileExistsError, NotADirectoryError):
        raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno is not None else str(error)
        if error.errno in _FULL:
            step = f"{_free(path)}make room there, then go on with the same command"
        elif error.errno in _REFUSED:
            step = "let this user read and write there, or name another place"
        else:
            step = "check the disk, then go on with the same command"
        kind = LastingStorageError if error.errno in _FULL | _REFUSED else StorageError
        raise kind(f"{path}: {reason}; {step}") from error


def _free(path: Path) -> str:
    """How much room is left where `path` lies or would lie; a quota may leave less."""
    with contextlib.suppress(OSError):
        there = next(each for each in path.parents if each.exists())
        return f"{shutil.disk_usage(there).free:,} bytes are free; "
    return ""
