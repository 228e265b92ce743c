"""File locks between processes: of one machine, or of several that share a network file system with locks.

Callers decide what to do while they hold one. Databases have locks of their own.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from batch_assets.errors import LastingStorageError

_CONTENT = b"Locked by Batch Assets, which removes this file.\n"
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


@contextlib.contextmanager
def locked(target: Path, remedy: str) -> Iterator[None]:
    """Hold the lock of `target` while the block runs, after waiting for it without a limit.

    The lock is on a hidden file beside `target`, since other machines do not see a lock on a folder. The end of the
    block removes that file, if this program has made it; the end of the process releases the lock. Raises
    LastingStorageError, which ends in `remedy`, where the file system has no locks.
    """
    path = target.parent / f".{target.name[:100]}.lock"
    while True:
        try:
            handle, made = _open(path)
        except FileNotFoundError:  # its holder has removed it in this moment
            if not path.parent.is_dir():
                raise
            continue
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError as error:
                # Another's may be held: the kernel may have run out of locks for this process alone.
                if made:
                    _remove_own(path, handle)
                if error.errno not in NO_LOCKS:
                    raise
                raise LastingStorageError(
                    f"{target.parent}: its file system has no locks ({os.strerror(error.errno)}); {remedy}"
                ) from error
            if _is_still(path, handle):
                try:
                    yield
                finally:
                    # Before the lock is given up: whoever waits for it finds that the file is another one.
                    _remove_own(path, handle)
                return
        finally:
            os.close(handle)


def _open(path: Path) -> tuple[int, bool]:
    """Open the file to lock. Returns its descriptor, and whether this call has created it."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        handle = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return os.open(path, flags), False
    with contextlib.suppress(OSError):  # on a full disk it is a lock all the same, and stays
        os.write(handle, _CONTENT)
    return handle, True


def _is_still(path: Path, handle: int) -> bool:
    """Whether `path` still names the open file, so that other processes wait for the same lock."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _remove_own(path: Path, handle: int) -> None:
    """Remove the locked file where it still has its name, and its content says that this program has made it."""
    if _is_still(path, handle) and os.pread(handle, len(_CONTENT) + 1, 0) == _CONTENT:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
