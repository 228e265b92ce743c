"""One version of a table, as its own metadata tell it: the files that count, and what does not stand in them.

The part of it that a plan needs is written under the plan's root: what is read afterwards never
depends on the table's log again.
"""

import functools
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets import paths
from batch_assets.errors import LastingStorageError
from batch_assets.sources.partitions import no_values
from batch_assets.sources.spool_files import Spools
from batch_assets.storage import Storage, join_uri, open_storage

DeletedRows = Callable[[str], npt.NDArray[np.int64]]
"""The physical rows of a file that are no records, ascending, by the file's path."""

_VERSION = b"batch_assets.table_version"
_DROPPED = b"batch_assets.dropped_columns"
_NO_ROWS = np.array([], np.int64)
_MARK = "|"  # between a file's version and what is deleted in it


@dataclass(frozen=True)
class TableFile:
    """One data file: `values` of the partition columns, and the physical rows that are deleted, ascending."""

    path: str
    values: Mapping[str, pa.Scalar]
    deleted: npt.NDArray[np.int64]


@dataclass(frozen=True)
class TableSnapshot:
    """A version of a table: its files by path, relative to the table's folder, and the types of partition columns.

    `dropped` are columns that some files may hold and the table has no more.
    """

    version: str
    files: Mapping[str, TableFile]
    partitions: Mapping[str, pa.DataType]
    dropped: frozenset[str] = frozenset()

    def values(self, path: str) -> Mapping[str, pa.Scalar]:
        """The values of the partition columns for all rows of a file."""
        return self.files[path].values if path in self.files else no_values(path)

    def deleted(self, path: str) -> npt.NDArray[np.int64]:
        """The physical rows of a file that are no rows of the table, ascending."""
        return self.files[path].deleted if path in self.files else _NO_ROWS

    def version_of(self, path: str, version: str) -> str:
        """A file's version, in which what is deleted in it has its part."""
        deleted = self.deleted(path)
        if not len(deleted):
            return version
        return f"{version}{_MARK}{hashlib.sha256(deleted.astype('<i8').tobytes()).hexdigest()[:16]}"


def no_deleted_rows(path: str) -> npt.NDArray[np.int64]:
    """Plain files have none."""
    return _NO_ROWS


def kept_rows(rows: npt.NDArray[np.int64], deleted: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Those of `rows` that are not deleted; both ascend."""
    if not len(deleted) or not len(rows):
        return rows
    first, last = np.searchsorted(deleted, [rows[0], rows[-1] + 1])
    return rows if first == last else rows[~np.isin(rows, deleted[first:last], assume_unique=True)]


def stored_version(version: str) -> str:
    """The part of a file's version that its storage tells."""
    return version.rpartition(_MARK)[0] if _MARK in version else version


def write_table_files(spools: Spools, snapshot: TableSnapshot, wanted: Collection[str]) -> str:
    """Write what is known of the `wanted` files, unless it is there, where spools are; returns its digest (hex)."""
    files = [snapshot.files[path] for path in sorted(wanted)]
    columns: list[pa.Array] = [
        pa.array([file.path for file in files], pa.string()),
        pa.array([file.deleted for file in files], pa.list_(pa.int64())),
    ]
    names = ["path", "deleted"]
    if snapshot.partitions:
        values = [
            pa.array([_value(file, name) for file in files], data_type)
            for name, data_type in snapshot.partitions.items()
        ]
        columns.append(pa.StructArray.from_arrays(values, names=list(snapshot.partitions)))
        names.append("partition")
    table = pa.Table.from_arrays(columns, names=names)
    sink = pa.BufferOutputStream()
    told = {_VERSION: snapshot.version, _DROPPED: orjson.dumps(sorted(snapshot.dropped))}
    pq.write_table(table.replace_schema_metadata(told), sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    digest = hashlib.sha256(data).hexdigest()
    if spools.root.create(paths.plan_table(digest), data):
        spools.written.append(paths.plan_table(digest))
    return digest


def _value(file: TableFile, name: str) -> Any:
    """Null where the metadata tell none: the column is in the file itself, or it is not there."""
    return file.values[name].as_py() if name in file.values else None


def read_table_files(root: Storage, digest: str) -> TableSnapshot:
    """The inverse of `write_table_files`. Raises StorageError where the file is gone or damaged."""
    return _read(root.uri, digest)


@functools.lru_cache(maxsize=4)
def _read(uri: str, digest: str) -> TableSnapshot:
    root, path = open_storage(uri), paths.plan_table(digest)
    try:
        data = root.read(path)
    except FileNotFoundError:
        data = b""
    if hashlib.sha256(data).hexdigest() != digest:
        raise LastingStorageError(
            f"{join_uri(uri, path)}: is missing or damaged, and says which rows of the table are planned; restore it "
            "from a copy of the output root"
        )
    table = pq.read_table(pa.BufferReader(data), use_threads=False).combine_chunks()
    found: Sequence[Mapping[str, pa.Scalar]] = [{}] * len(table)
    types: dict[str, pa.DataType] = {}
    if "partition" in table.column_names:
        struct = table.schema.field("partition").type
        types = {field.name: field.type for field in struct}
        columns = {name: pa.chunked_array([*_field(table, name)], types[name]) for name in types}
        found = [{name: column[index] for name, column in columns.items()} for index in range(len(table))]
    files = {
        path: TableFile(path, values, np.array(deleted, np.int64))
        for path, values, deleted in zip(
            table.column("path").to_pylist(), found, table.column("deleted").to_pylist(), strict=True
        )
    }
    told = table.schema.metadata or {}
    return TableSnapshot(told[_VERSION].decode(), files, types, frozenset(orjson.loads(told[_DROPPED])))


def _field(table: pa.Table, name: str) -> list[pa.Array]:
    return [chunk.field(name) for chunk in table.column("partition").chunks]
