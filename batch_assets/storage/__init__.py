"""Files under one URI, the same on a local disk and on an object store.

What belongs here: reading, streaming, listing, and the two conditional writes that commit
markers rest on (`create`, `replace`). Which file lies where is in `paths.py`; what a file
means, in the module that writes it. Object stores are reached through obstore, a local disk
through the operating system: obstore's local store has no compare-and-set.
"""

from batch_assets.storage.base import (
    CHUNK_BYTES,
    FileInfo,
    Output,
    Storage,
    VersionMismatch,
    is_local,
    join_uri,
    normalize_uri,
    real_uri,
    same_place,
)
from batch_assets.storage.local import LocalStorage
from batch_assets.storage.objects import ObjectStorage

__all__ = [
    "CHUNK_BYTES",
    "FileInfo",
    "LocalStorage",
    "ObjectStorage",
    "Output",
    "Storage",
    "VersionMismatch",
    "is_local",
    "join_uri",
    "normalize_uri",
    "open_storage",
    "real_uri",
    "same_place",
]


def open_storage(uri: str) -> Storage:
    """The storage of a URI, whatever its spelling. Nothing is created or contacted yet."""
    uri = normalize_uri(uri)
    return LocalStorage(uri) if is_local(uri) else ObjectStorage(uri)
