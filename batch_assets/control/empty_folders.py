"""Folders that a deletion leaves empty: on a local disk they go, too, as an object store would have it."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from batch_assets.storage import Storage, is_local


def remove_empty_folders(storage: Storage, files: Iterable[str], shallowest: int) -> None:
    """Of files that were deleted, down to folders of so many parts: somebody may be about to write into those above."""
    if not is_local(storage.uri):
        return
    for folder in sorted({path.rpartition("/")[0] for path in files}, reverse=True):
        parts = folder.split("/")
        for depth in range(len(parts), shallowest - 1, -1):
            with contextlib.suppress(OSError):
                os.rmdir(Path(storage.uri, *parts[:depth]))
