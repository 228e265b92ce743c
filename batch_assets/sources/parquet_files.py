"""Opening Parquet files that others have written, and telling their faults from our own limits."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.errors import SourceError
from batch_assets.sources.files import broken
from batch_assets.sources.parquet_batches import ARROW_LIMITS, Reopen
from batch_assets.storage import Storage, join_uri


def open_parquet(storage: Storage, path: str) -> pq.ParquetFile:
    """The file, opened to be read in batches. Raises pa.ArrowException, OSError."""
    return _open(storage, path, None, ())


def reopener(storage: Storage, path: str, metadata: pq.FileMetaData) -> Reopen:
    """What opens the file of this footer once more."""
    return partial(_open, storage, path, metadata)


def _open(
    storage: Storage, path: str, metadata: pq.FileMetaData | None, dictionaries: Sequence[str]
) -> pq.ParquetFile:
    # Buffered, not prefetched: else a whole row group would be held in memory.
    return pq.ParquetFile(
        storage.open_input(path),
        metadata=metadata,
        read_dictionary=list(dictionaries),
        pre_buffer=False,
        buffer_size=2**20,
    )


@contextlib.contextmanager
def parquet_errors(storage: Storage, path: str) -> Iterator[None]:
    """Say of a file that it is damaged, or that it is more than can be decoded here, which is no fault of it."""
    try:
        yield
    except ARROW_LIMITS as error:
        raise SourceError(
            f"{join_uri(storage.uri, path)}: cannot be decoded here ({str(error).splitlines()[0]}); write it anew "
            "in common encodings and with smaller values, or leave it out by a name that begins with '_'"
        ) from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: of a column's name
        if isinstance(error, (FileNotFoundError, PermissionError)):
            raise
        raise broken(storage, path, "Parquet", error) from error
