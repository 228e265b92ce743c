"""Parquet files as this project lays them out: written once, hashed on the way, read by footer.

The embedding column is plain-encoded, uncompressed and without statistics: random floats
gain nothing from any of it, and readers map it as it is. Other columns are zstd. Row groups
have about `GROUP_ROWS` rows or `GROUP_BYTES`, whatever the sizes of what comes in. Which
columns there are is in `schema.py`.
"""

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.embeddings.schema import EMBEDDING
from batch_assets.embeddings.validation import Vectors
from batch_assets.errors import AccountingError
from batch_assets.storage import Storage

GROUP_ROWS = 8192
LOOKED_UP_GROUP_ROWS = 1024
"""Where rows are looked up one by one: a lookup reads the vectors of one group."""
GROUP_BYTES = 32 * 2**20
VECTOR_BATCH = 2048
READ_BYTES = 2**20
VECTOR_LEAF = f"{EMBEDDING}.list.element"


@dataclass(frozen=True, slots=True)
class DataFile:
    """A finished file; `path` is relative to the output root, `sha256` hex over all its bytes."""

    path: str
    rows: int
    bytes: int
    sha256: str


class HashingSink:
    """A new file of `storage` that hashes what is written to it; pyarrow takes it as a file."""

    def __init__(self, storage: Storage, path: str) -> None:
        self._output = storage.open_output(path)
        self._digest = hashlib.sha256()
        self._aborted = False
        self.bytes = 0

    @property
    def closed(self) -> bool:
        return self._output.closed

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: bytes | memoryview) -> int:
        size = len(data)
        if not self._aborted:
            self._output.write(data)
            self._digest.update(data)
        self.bytes += size
        return size

    def flush(self) -> None:
        """Nothing to do: bytes count only once the file is closed."""

    def tell(self) -> int:
        return self.bytes

    def close(self) -> None:
        if not self._aborted:
            self._output.close()

    def abort(self) -> None:
        """Drop the file; a Parquet writer that still writes its footer writes it nowhere."""
        self._aborted = True
        self._output.abort()


class GroupedWriter:
    """One new Parquet file with even row groups, of `group_rows` and `group_bytes` at most.

    Holds at most about two in memory.
    """

    def __init__(
        self,
        storage: Storage,
        path: str,
        schema: pa.Schema,
        *,
        group_rows: int = GROUP_ROWS,
        group_bytes: int = GROUP_BYTES,
    ) -> None:
        self.path = path
        self.rows = 0
        self._storage = storage
        self._schema = schema
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._pending_bytes = 0
        self._group_bytes = group_bytes
        self._group_rows = min(_group_rows(schema, group_bytes), group_rows)
        self._sink = HashingSink(storage, path)
        leaves = _leaves(schema)
        others = [leaf for leaf in leaves if leaf != VECTOR_LEAF]
        codecs = {leaf: "none" if leaf == VECTOR_LEAF else "zstd" for leaf in leaves}
        layout: dict[str, Any] = {"compression": codecs, "use_dictionary": others, "write_statistics": others}
        self._writer = pq.ParquetWriter(self._sink, schema, **layout)

    @property
    def bytes(self) -> int:
        """How large the file is so far."""
        return self._sink.bytes

    def append(self, table: pa.Table) -> None:
        """Add rows; `table` has exactly the file's schema."""
        self.rows += table.num_rows
        while table.num_rows:
            head = table.slice(0, self._group_rows - self._pending_rows)
            table = table.slice(head.num_rows)
            self._pending.append(head)
            self._pending_rows += head.num_rows
            self._pending_bytes += head.nbytes
            if self._pending_rows == self._group_rows or self._pending_bytes >= self._group_bytes:
                self._write_group()

    def _write_group(self) -> None:
        if self._pending:
            group = pa.concat_tables(self._pending)
            self._writer.write_table(group, row_group_size=max(group.num_rows, 1))
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0

    def close(self) -> DataFile:
        """Finish the file; it is durable when this returns."""
        self._write_group()
        self._writer.close()
        self._sink.close()
        return DataFile(self.path, self.rows, self._sink.bytes, self._sink.sha256)

    def abort(self) -> None:
        """Give the file up: nothing is left under its name."""
        self._pending = []
        finished = self._sink.closed
        self._sink.abort()
        self._writer.close()
        if finished:
            self._storage.delete([self.path])


@functools.lru_cache(maxsize=64)
def _leaves(schema: pa.Schema) -> list[str]:
    """Paths of a schema's leaves in Parquet, of which a nested column has several."""
    sink = pa.BufferOutputStream()
    pq.ParquetWriter(sink, schema).close()
    found = pq.read_metadata(pa.BufferReader(sink.getvalue())).schema
    return [found.column(place).path for place in range(len(found))]


def _group_rows(schema: pa.Schema, group_bytes: int) -> int:
    if EMBEDDING not in schema.names:
        return GROUP_ROWS
    vector = schema.field(EMBEDDING).type
    row_bytes = vector.list_size * vector.value_type.bit_width // 8
    return max(1, min(GROUP_ROWS, group_bytes // row_bytes))


@contextlib.contextmanager
def open_parquet(
    storage: Storage, path: str, footer: pq.FileMetaData | None = None
) -> Iterator[pq.ParquetFile]:
    """A data file opened for reading; AccountingError names it where it is missing or not whole.

    Its `footer` need not be read where it is known.
    """
    try:
        with storage.open_input(path) as file:
            # Read in small steps: half the processor time of whole column chunks, and no memory to speak of.
            yield pq.ParquetFile(file, metadata=footer, buffer_size=READ_BYTES, pre_buffer=False)
    except FileNotFoundError:
        raise AccountingError(f"{path}: the file is missing under {storage.uri}") from None
    # pyarrow reads the columns' names as UTF-8, and lets Python's own error for a damaged one through.
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's or the network's fault; pyarrow's own for damaged bytes has no number
        raise AccountingError(f"{path}: not a whole Parquet file: {error}") from error


def count_rows(storage: Storage, path: str) -> int:
    """Rows of a data file, by its footer. Raises AccountingError as `open_parquet` does."""
    with open_parquet(storage, path) as file:
        return file.metadata.num_rows


def iter_vectors(file: pq.ParquetFile, groups: Sequence[int] | None = None) -> Iterator[Vectors]:
    """A file's vectors in order, a few at a time: (n, dimensions), in the type in which they are stored.

    `groups` are the row groups to read, by default all.
    """
    batches = file.iter_batches(VECTOR_BATCH, row_groups=groups, columns=[EMBEDDING], use_threads=False)
    for batch in batches:
        column = batch.column(EMBEDDING)
        yield column.flatten().to_numpy().reshape(-1, column.type.list_size)
