"""Tars for tests, in memory."""

import io
import tarfile
from collections.abc import Sequence


def tar_bytes(members: Sequence[tuple[str, bytes]], format: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar of regular files, in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
