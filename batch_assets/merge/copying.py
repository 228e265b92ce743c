"""Copying a committed file into a merged version, with proof that it is what was committed.

On a local disk the bytes are hashed as they are copied; an object store copies them itself,
which only leaves their number to compare.
"""

import hashlib
from collections.abc import Iterator

from batch_assets.embeddings.accounting import check_size
from batch_assets.embeddings.parquet_files import DataFile, HashingSink
from batch_assets.errors import AccountingError
from batch_assets.storage import Storage, is_local

LOCAL_BUFFER_BYTES = 2**20


def copy_file(storage: Storage, source: DataFile, target: str) -> DataFile:
    """Copy `source` to `target`; AccountingError where it is not the file that was committed."""
    check_size(storage, source)
    if is_local(storage.uri):
        sink = HashingSink(storage, target)
        try:
            for chunk in _chunks(storage, source.path):
                sink.write(chunk)
            check_digest(source, sink.sha256)
            sink.close()
        except BaseException:
            sink.abort()
            raise
    else:
        storage.copy(source.path, target)
    copied = DataFile(target, source.rows, source.bytes, source.sha256)
    check_size(storage, copied)
    return copied


def check_file(storage: Storage, file: DataFile) -> None:
    """Read a file through; AccountingError where it is not what was committed."""
    check_size(storage, file)
    digest = hashlib.sha256()
    for chunk in _chunks(storage, file.path):
        digest.update(chunk)
    check_digest(file, digest.hexdigest())


def check_committed(storage: Storage, file: DataFile) -> None:
    """`check_file`, on an object store `check_size`: it answers for its bytes itself."""
    if is_local(storage.uri):
        check_file(storage, file)
    else:
        check_size(storage, file)


def read_file(storage: Storage, source: DataFile) -> bytes:
    """All bytes of a small committed file, checked by digest."""
    check_size(storage, source)
    data = storage.read(source.path)
    check_digest(source, hashlib.sha256(data).hexdigest())
    return data


def check_digest(file: DataFile, sha256: str) -> None:
    """Raise AccountingError where a file's bytes hash to something else than was committed."""
    if sha256 != file.sha256:
        raise AccountingError(
            f"{file.path}: its bytes have changed since they were committed (sha256 {sha256[:16]}…, "
            f"not {file.sha256[:16]}…); embed its shard again, or merge again if it is a merged part"
        )


def _chunks(storage: Storage, path: str) -> Iterator[bytes | memoryview]:
    """A file's bytes; a chunk is void once the next one is asked for.

    Locally they go through one small buffer: fresh memory for every chunk costs as much as copying it.
    """
    if not is_local(storage.uri):
        yield from storage.stream(path)
        return
    buffer = memoryview(bytearray(LOCAL_BUFFER_BYTES))
    with storage.open_input(path) as file:
        while size := file.readinto(buffer):
            yield buffer[:size]
