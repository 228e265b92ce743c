"""An Iceberg table's current snapshot, by its metadata, as the library pyiceberg reads them.

No catalog is asked: current is what the folder's own metadata say, by version-hint.text where
there is one, else by the highest number in the names of the metadata files.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.errors import BatchAssetsError, ConfigurationError, SourceError
from batch_assets.sources.tables.markers import EXPORT
from batch_assets.sources.tables.snapshot import TableFile, TableSnapshot
from batch_assets.storage import Storage

_HINT = "metadata/version-hint.text"
_NUMBERED = re.compile(r"metadata/(v?)(\d+)(?:-[0-9a-fA-F-]{36})?(?:\.gz)?\.metadata\.json(?:\.gz)?")


def read_iceberg(storage: Storage) -> TableSnapshot:
    """The current snapshot of the table in the storage's folder.

    Raises SourceError where the metadata cannot be read, ConfigurationError for a table whose rows are not
    to be had by reading its files under the names of their columns.
    """
    path = _current_metadata(storage)
    with _explained(storage, path):
        return _read(storage, path)


def iceberg_version(storage: Storage) -> str:
    """The table's current snapshot, without reading what files it has."""
    path = _current_metadata(storage)
    with _explained(storage, path):
        return _version(_metadata(storage, path))


@contextlib.contextmanager
def _explained(storage: Storage, path: str) -> Iterator[None]:
    try:
        yield
    except BatchAssetsError:
        raise
    except Exception as error:  # of many kinds: pydantic's, avro's, its own
        reason = str(error).split("\n", 1)[0]
        raise SourceError(
            f"{storage.uri}: pyiceberg cannot read this Iceberg table by {path} ({reason}); {EXPORT}"
        ) from error


def _current_metadata(storage: Storage) -> str:
    """The path of the metadata file that is current."""
    there: dict[int, list[str]] = {}
    hadoop = False
    for info in storage.list("metadata"):
        found = _NUMBERED.fullmatch(info.path)
        if found is not None:
            hadoop = hadoop or bool(found[1])
            there.setdefault(int(found[2]), []).append(info.path)
    if not there:
        raise SourceError(
            f"{storage.uri}/metadata: holds no Iceberg metadata file any more; put the table back, or name another "
            "source"
        )
    number = max(there)
    hint = storage.read_versioned(_HINT)
    if hint is not None:
        told = hint[0].decode("utf-8", "replace").strip()
        if not told.isdecimal() or int(told) not in there:
            raise SourceError(
                f"{storage.uri}/{_HINT}: names {told!r}, and there is no such metadata file; write the number of one"
            )
        number = int(told)
        # Who committed may have died before writing the hint: it is a place to start from.
        while hadoop and number + 1 in there:
            number += 1
    if len(there[number]) > 1:
        raise SourceError(
            f"{storage.uri}: {' and '.join(sorted(there[number]))} have one number: a commit of one failed, and only "
            f"the table's catalog knows of which; move that one away, or {EXPORT}"
        )
    return there[number][0]


def _read(storage: Storage, path: str) -> TableSnapshot:
    from pyiceberg.catalog.noop import NoopCatalog
    from pyiceberg.table import StaticTable

    from batch_assets.sources.tables.iceberg_files import TableFiles

    metadata = _metadata(storage, path)
    files = TableFiles(storage, metadata.location)
    dropped = _dropped_columns(storage.uri, metadata)
    table = StaticTable(("table",), metadata, path, cast("Any", files), NoopCatalog("none"))
    if table.current_snapshot() is None:
        return TableSnapshot(_version(metadata), {}, {})
    found: dict[str, TableFile] = {}
    types = _identity_types(metadata)
    vectors: dict[str, Mapping[str, npt.NDArray[np.int64]]] = {}
    for task in table.scan().plan_files():
        file = task.file
        if file.file_format.name != "PARQUET":
            raise ConfigurationError(
                f"source.uri: {storage.uri} is an Iceberg table with files in {file.file_format.name}; {EXPORT}"
            )
        deleted: list[npt.NDArray[np.int64]] = []
        for entry in task.delete_files:
            if entry.file_path not in vectors:
                vectors[entry.file_path] = _positions(storage, files.relative(entry.file_path), entry)
            deleted.append(vectors[entry.file_path].get(file.file_path, np.array([], np.int64)))
        rows = np.unique(np.concatenate(deleted)) if deleted else np.array([], np.int64)
        place = files.relative(file.file_path)
        found[place] = TableFile(place, _identity_values(metadata, file, types), rows)
    return TableSnapshot(_version(metadata), found, types, dropped)


def _metadata(storage: Storage, path: str) -> Any:
    from pyiceberg.serializers import Compressor, FromByteStream

    compression = Compressor.get_compressor(path)
    return FromByteStream.table_metadata(pa.BufferReader(storage.read(path)), compression=compression)


def _version(metadata: Any) -> str:
    return "of no snapshot" if metadata.current_snapshot_id is None else str(metadata.current_snapshot_id)


def _dropped_columns(uri: str, metadata: Any) -> frozenset[str]:
    """The columns that older files may have and the table has no more.

    Files are read by the names of their columns, and Iceberg knows columns by number: where a name has meant
    another column, or a column had another name, ConfigurationError.
    """
    names: dict[int, str] = {}
    numbers: dict[str, int] = {}
    for schema in metadata.schemas:
        for number in schema.field_ids:
            name = schema.find_column_name(number)
            if names.setdefault(number, name) != name or numbers.setdefault(name, number) != number:
                raise ConfigurationError(
                    f"source.uri: {uri} is an Iceberg table of which column {name!r} was renamed, moved, or dropped "
                    f"and added anew, so that its files name it otherwise; rewrite the table's files, or {EXPORT}"
                )
    current = metadata.schema()
    for field in current.fields:
        if getattr(field, "initial_default", None) is not None:
            raise ConfigurationError(
                f"source.uri: {uri} is an Iceberg table whose older files lack column {field.name!r}, of which only "
                f"the metadata know the value; rewrite the table's files, or {EXPORT}"
            )
    gone = {name for number, name in names.items() if number not in current.field_ids}
    nested = [name for name in gone if "." in name and name.split(".")[0] not in gone]
    if nested:
        raise ConfigurationError(
            f"source.uri: {uri} is an Iceberg table of which {nested[0]!r}, a part of a column, was dropped, and older "
            f"files still hold it; rewrite the table's files, or {EXPORT}"
        )
    return frozenset(name for name in gone if "." not in name)


def _identity_types(metadata: Any) -> dict[str, pa.DataType]:
    """The columns that files may lack because the metadata know their value, with their types."""
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    schema = metadata.schema()
    arrow = schema_to_pyarrow(schema, include_field_ids=False)
    return {
        name: arrow.field(name).type
        for spec in metadata.partition_specs
        for name in _identities(spec, schema)
    }


def _identities(spec: Any, schema: Any) -> dict[str, int]:
    """The partition fields that are columns as they are, each with its place in a file's partition record."""
    from pyiceberg.transforms import IdentityTransform

    names = [field.name for field in schema.fields]
    found: dict[str, int] = {}
    for place, field in enumerate(spec.fields):
        name = schema.find_column_name(field.source_id)
        if isinstance(field.transform, IdentityTransform) and name in names:
            found[name] = place
    return found


def _identity_values(metadata: Any, file: Any, types: Mapping[str, pa.DataType]) -> dict[str, pa.Scalar]:
    spec = next(spec for spec in metadata.partition_specs if spec.spec_id == file.spec_id)
    places = _identities(spec, metadata.schema())
    return {name: _scalar(file.partition[places[name]], types[name]) for name in types if name in places}


def _scalar(value: Any, data_type: pa.DataType) -> pa.Scalar:
    """A value as the metadata hold it: dates in days, times in microseconds."""
    if value is not None and pa.types.is_temporal(data_type) and isinstance(value, int):
        width = pa.int32() if data_type.bit_width == 32 else pa.int64()
        return pa.array([value], width).cast(data_type)[0]
    return pa.scalar(value, data_type)


def _positions(storage: Storage, path: str, entry: Any) -> Mapping[str, npt.NDArray[np.int64]]:
    """The rows that a file of deletes takes out, by the data file's location."""
    content, kind = entry.content.name, entry.file_format.name
    if content != "POSITION_DELETES" or kind not in ("PARQUET", "PUFFIN"):
        raise ConfigurationError(
            f"source.uri: {storage.uri} is an Iceberg table that deletes rows by {path}, of {content} in {kind}; "
            f"compact the table, or {EXPORT}"
        )
    if kind == "PUFFIN":
        from pyiceberg.table.deletion_vector import deletion_vectors_from_puffin_file
        from pyiceberg.table.puffin import PuffinFile

        vectors: Iterable[Any] = deletion_vectors_from_puffin_file(PuffinFile(storage.read(path)))
        return {
            vector.referenced_data_file: vector.to_vector().to_numpy().astype(np.int64) for vector in vectors
        }
    with storage.open_input(path) as file:
        table = pq.read_table(file, columns=["file_path", "pos"], read_dictionary=["file_path"])
    if not table.num_rows:
        return {}
    places: Any = table.combine_chunks().column("file_path").chunk(0)
    codes, rows = places.indices.to_numpy(), table.column("pos").to_numpy().astype(np.int64)
    order = np.argsort(codes, kind="stable")
    cuts = np.flatnonzero(np.diff(codes[order])) + 1
    return {places.dictionary[int(codes[one[0]])].as_py(): rows[one] for one in np.split(order, cuts)}
