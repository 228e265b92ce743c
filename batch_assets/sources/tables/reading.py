"""Which library reads which kind of table, and what is said of tables that none reads."""

import importlib.util
from collections.abc import Sequence

from batch_assets.errors import ConfigurationError, SourceError
from batch_assets.sources.tables.markers import DELTA, EXPORT, ICEBERG, NAMES
from batch_assets.sources.tables.snapshot import TableSnapshot
from batch_assets.sources.visibility import is_hidden
from batch_assets.storage import FileInfo, Storage

_LIBRARIES = {DELTA: "deltalake", ICEBERG: "pyiceberg"}


def read_table(kind: str, storage: Storage) -> TableSnapshot:
    """The table's current version. Raises ConfigurationError where nothing reads its kind; SourceError."""
    _demand_library(kind, storage.uri)
    if kind == DELTA:
        from batch_assets.sources.tables.delta import read_delta

        return read_delta(storage.uri)
    from batch_assets.sources.tables.iceberg import read_iceberg

    return read_iceberg(storage)


def table_version(kind: str, storage: Storage) -> str:
    """The table's current version without its files: as cheap as it can be had. Raises as `read_table` does."""
    _demand_library(kind, storage.uri)
    if kind == DELTA:
        from batch_assets.sources.tables.delta import delta_version

        return delta_version(storage.uri)
    from batch_assets.sources.tables.iceberg import iceberg_version

    return iceberg_version(storage)


def _demand_library(kind: str, uri: str) -> None:
    library = _LIBRARIES.get(kind)
    if library is None:
        raise ConfigurationError(f"source.uri: {uri} is {NAMES[kind]}, which is not read; {EXPORT}")
    if importlib.util.find_spec(library) is None:
        raise ConfigurationError(
            f"source.uri: {uri} is {NAMES[kind]}, which {library} reads, and that is not installed; "
            f"pip install 'batch-assets[{kind}]', or {EXPORT}"
        )


def live_files(table: TableSnapshot, storage: Storage) -> tuple[Sequence[FileInfo], int]:
    """The table's files in the order of their paths, and how many other Parquet files its folder holds.

    Raises SourceError where one is not there.
    """
    there = {info.path: info for info in storage.list()}
    files: list[FileInfo] = []
    for path in sorted(table.files):
        info = there.pop(path, None)
        if info is None:
            raise SourceError(
                f"{storage.uri}: version {table.version} of the table consists of {len(table.files):,} files, and "
                f"{path} is not there; has it been vacuumed while its log was read? Plan again, or restore the file"
            )
        files.append(FileInfo(path, info.size, table.version_of(path, info.version), info.modified))
    return files, sum(path.endswith(".parquet") and not is_hidden(path) for path in there)
