"""Opening Parquet files that others have written, and telling their faults from our own limits."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.errors import UnreadableFile
from batch_assets.plain_text import first_line
from batch_assets.sources.files import LEAVE_OUT, broken, no_memory
from batch_assets.sources.parquet_batches import ARROW_LIMITS, Reopen
from batch_assets.storage import Storage, join_uri, open_storage

_INT96_ROWS = 65_536
_NANOSECONDS_REACH = (2**63 - 1) // 1_000  # microseconds since 1970


def open_parquet(storage: Storage, path: str) -> pq.ParquetFile:
    """The file, opened to be read in batches. Raises pa.ArrowException, OSError, SourceError."""
    return _open(storage, path, None, ())


def reopener(storage: Storage, path: str, metadata: pq.FileMetaData) -> Reopen:
    """What opens the file of this footer once more."""
    return partial(_open, storage, path, metadata)


def _open(
    storage: Storage, path: str, metadata: pq.FileMetaData | None, dictionaries: Sequence[str]
) -> pq.ParquetFile:
    file = _open_as("us", storage, path, metadata, dictionaries)
    leaves = map(file.metadata.schema.column, range(file.metadata.num_columns))
    int96 = [leaf.path for leaf in leaves if leaf.physical_type == "INT96"]
    info = storage.info(path) if int96 else None
    if info is not None and _int96_unit(storage.uri, path, info.version, tuple(int96)) == "ns":
        return _open_as("ns", storage, path, file.metadata, dictionaries)
    return file


def _open_as(
    int96_unit: str,
    storage: Storage,
    path: str,
    metadata: pq.FileMetaData | None,
    dictionaries: Sequence[str],
) -> pq.ParquetFile:
    # Buffered, not prefetched: else a whole row group would be held in memory.
    return pq.ParquetFile(
        storage.open_input(path),
        metadata=metadata,
        read_dictionary=list(dictionaries),
        pre_buffer=False,
        buffer_size=2**20,
        coerce_int96_timestamp_unit=int96_unit,
    )


@functools.lru_cache(maxsize=1_000)
def _int96_unit(uri: str, path: str, version: str, leaves: tuple[str, ...]) -> str:
    """The unit that holds a file's INT96 timestamps, which have nanoseconds in any year: "us", or "ns" if need be.

    Spark, which writes most of them, knows microseconds only, and years that 64 bits of nanoseconds do not
    reach. A whole file has one unit, for all of its segments. Raises UnreadableFile where neither will do.
    """
    storage = open_storage(uri)
    files = [_open_as(unit, storage, path, None, ()) for unit in ("us", "ns")]
    batches = (file.iter_batches(_INT96_ROWS, columns=list(leaves), use_threads=False) for file in files)
    finer = farther = False
    for coarse, fine in zip(*batches, strict=True):
        for first, second in zip(_flat_columns(coarse), _flat_columns(fine), strict=True):
            if first.type != second.type:
                microseconds, nanoseconds = (part.cast(pa.int64()).fill_null(0) for part in (first, second))
                # Exact also where nanoseconds have gone around.
                finer |= bool((nanoseconds.to_numpy() - microseconds.to_numpy() * 1_000).any())
                farther |= bool((abs(microseconds.to_numpy()) > _NANOSECONDS_REACH).any())
    if finer and farther:
        raise UnreadableFile(
            f"{join_uri(uri, path)}: has INT96 timestamps ({', '.join(leaves)}), some with nanoseconds and some "
            "before 1678 or after 2261, which no type holds together; write the file anew without one of the two"
        )
    return "ns" if finer else "us"


def _flat_columns(batch: pa.RecordBatch) -> list[pa.Array]:
    """A batch's columns, those inside of structs, lists and maps in place of these."""
    columns: list[Any] = batch.columns
    while any(pa.types.is_nested(column.type) for column in columns):
        columns = list(chain.from_iterable(map(_inside, columns)))
    return columns


def _inside(column: Any) -> list[Any]:
    if isinstance(column, pa.StructArray):
        return column.flatten()
    if isinstance(column, pa.MapArray):
        return [column.keys, column.items]
    return [column.flatten()] if pa.types.is_nested(column.type) else [column]


@contextlib.contextmanager
def parquet_errors(storage: Storage, path: str) -> Iterator[None]:
    """Say of a file that it is damaged, or that it is more than can be decoded here, which is no fault of it.

    Where the disk or the memory of this machine is at fault, the file may be good: a StorageError.
    """
    try:
        yield
    except pa.ArrowMemoryError as error:
        raise no_memory(storage, path, error) from error
    except ARROW_LIMITS as error:
        raise UnreadableFile(
            f"{join_uri(storage.uri, path)}: cannot be decoded here ({first_line(error)}); write it anew "
            f"in common encodings and with smaller values, or {LEAVE_OUT}"
        ) from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: of a column's name
        if isinstance(error, (FileNotFoundError, PermissionError)):
            raise
        raise broken(storage, path, "Parquet", error) from error
