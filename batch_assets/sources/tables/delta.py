"""A Delta table's current version, by its log, as the library deltalake reads it."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from batch_assets.errors import ConfigurationError, SourceError
from batch_assets.sources.tables.markers import EXPORT, path_inside
from batch_assets.sources.tables.snapshot import TableFile, TableSnapshot
from batch_assets.storage.credentials import library_options

# What these change is in the log or in the files' rows, and is read here; of others nothing is known.
_READ_FEATURES = {"deletionVectors", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"}


def read_delta(uri: str) -> TableSnapshot:
    """The current version of the table in the folder `uri`.

    Raises SourceError where the log cannot be read, ConfigurationError for a table that needs more of its
    reader than is known here.
    """
    with _explained(uri):
        table = _open(uri)
        _refuse_unknown(uri, table)
        added = pa.table(table.get_add_actions())
        deleted = _deleted_rows(uri, table)
    types = _partition_types(added.schema)
    columns = _partition_columns(added, types)
    files: dict[str, TableFile] = {}
    for index, encoded in enumerate(added.column("path").to_pylist()):
        path = path_inside(uri, unquote(encoded))
        values = {name: column[index] for name, column in columns.items()}
        files[path] = TableFile(path, values, deleted.pop(path, np.array([], np.int64)))
    if deleted:
        raise SourceError(
            f"{uri}: the log deletes rows of {min(deleted)!r}, which is no file of it; {EXPORT}"
        )
    return TableSnapshot(str(table.version()), files, types)


def delta_version(uri: str) -> str:
    """The table's current version."""
    with _explained(uri):
        return str(_open(uri).version())


def _open(uri: str) -> Any:
    import deltalake

    if "%" in uri:  # its kernel decodes the path, and looks into another folder
        raise ConfigurationError(
            f"source.uri: {uri} is a Delta table in a folder with '%' in its path, which deltalake takes for another "
            "folder; rename the folder"
        )
    return deltalake.DeltaTable(uri, storage_options=library_options(uri))


@contextlib.contextmanager
def _explained(uri: str) -> Iterator[None]:
    from deltalake.exceptions import DeltaError

    try:
        yield
    except (DeltaError, OSError, ValueError) as error:
        reason = str(error).split("\n", 1)[0]
        raise SourceError(f"{uri}: deltalake cannot read this Delta table ({reason}); {EXPORT}") from error


def _refuse_unknown(uri: str, table: Any) -> None:
    protocol, properties = table.protocol(), table.metadata().configuration
    features: list[str] = protocol.reader_features or []
    unknown = set(features) - _READ_FEATURES
    if properties.get("delta.columnMapping.mode", "none") != "none":
        unknown.add("columnMapping")
    if unknown:
        raise ConfigurationError(
            f"source.uri: {uri} is a Delta table whose reader must know {', '.join(sorted(unknown))}, which this "
            f"version does not; {EXPORT}"
        )


def _partition_types(schema: pa.Schema) -> dict[str, pa.DataType]:
    if "partition" not in schema.names:
        return {}
    return {field.name: _plain(field.type) for field in schema.field("partition").type}


def _plain(data_type: pa.DataType) -> pa.DataType:
    return data_type.value_type if pa.types.is_dictionary(data_type) else data_type


def _partition_columns(added: pa.Table, types: Mapping[str, pa.DataType]) -> dict[str, pa.ChunkedArray]:
    if not types:
        return {}
    chunks = added.column("partition").chunks
    return {
        name: pa.chunked_array(
            [chunk.field(name) for chunk in chunks], chunks and chunks[0].field(name).type
        ).cast(data_type)
        for name, data_type in types.items()
        if chunks
    }


def _deleted_rows(uri: str, table: Any) -> dict[str, Any]:
    """The physical rows that deletion vectors take out, ascending, by the file's path."""
    found: dict[str, Any] = {}
    base = table.table_uri.rstrip("/") + "/"
    for batch in pa.RecordBatchReader.from_stream(table.deletion_vectors()):
        for file, kept in zip(batch.column("filepath"), batch.column("selection_vector"), strict=True):
            place = file.as_py()
            if not place.startswith(base):
                raise SourceError(f"{uri}: a deletion vector is of {place}, which lies elsewhere; {EXPORT}")
            mask = kept.values.to_numpy(zero_copy_only=False)
            found[unquote(place.removeprefix(base))] = np.flatnonzero(~mask).astype(np.int64)
    return found
