"""Telling tables by the files that lie beside their data, so that none is read file by file.

A folder of a table format holds old and deleted rows beside the present ones; which files count, only
the table's own metadata says. What reads that is in the files beside this one.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from batch_assets.errors import BatchAssetsError, ConfigurationError, SourceError
from batch_assets.paths import is_inside
from batch_assets.sources.visibility import is_hidden
from batch_assets.storage import FileInfo, Storage, open_storage, real_uri

DELTA, ICEBERG = "delta", "iceberg"
TABLE_FORMATS = (DELTA, ICEBERG)
NAMES = {
    DELTA: "a Delta table",
    ICEBERG: "an Iceberg table",
    "hudi": "a Hudi table",
    "paimon": "a Paimon table",
    "lance": "a Lance dataset",
}
EXPORT = "export its rows to plain Parquet files and name their folder"
_MARKERS = re.compile(
    r"(?:(?P<folder>.*)/)?(?:"
    r"(?P<delta>_delta_log/.+)"
    r"|(?P<iceberg>metadata/(?:v\d+|\d+-[0-9a-fA-F-]{36})(?:\.gz)?\.metadata\.json(?:\.gz)?)"
    r"|(?P<hudi>\.hoodie/.+)"
    r"|(?P<paimon>snapshot/snapshot-\d+)"
    r"|(?P<lance>_versions/\d+\.manifest)"
    r")"
)
_FOLDERS = ("_delta_log", "metadata", ".hoodie", "snapshot", "_versions")
_LOOKED_AT = 1_000  # files of one such folder; in an object store, one request
_LEVELS = 4  # above a source, where the table may begin that it lies in
_SHOWN = 3


def table_at(storage: Storage) -> str | None:
    """The kind of table that has its folder exactly here, by a look into the folders that would say so."""
    # Of a long history, an Iceberg table's v7.metadata.json comes behind all the other files of that folder.
    for folder, after in (*((folder, None) for folder in _FOLDERS), ("metadata", "metadata/v")):
        for info in islice(storage.list(folder, after), _LOOKED_AT):
            found = _MARKERS.fullmatch(info.path)
            if found is not None and found["folder"] is None:
                return found.lastgroup
    return None


def is_table(infos: Iterable[FileInfo]) -> bool:
    """Whether some of a folder's files say that the folder itself is a table."""
    return any(found["folder"] is None for info in infos if (found := _MARKERS.fullmatch(info.path)))


def note_tables(infos: Iterable[FileInfo], tables: dict[str, str]) -> Iterator[FileInfo]:
    """The files as they come; the folders among them that are tables go into `tables`, each with its kind."""
    for info in infos:
        found = _MARKERS.fullmatch(info.path)
        if found is not None and found.lastgroup is not None and not is_hidden(found["folder"] or ""):
            tables[found["folder"] or ""] = found.lastgroup
        yield info


def path_inside(uri: str, path: str) -> str:
    """`path` if it lies in the table's own folder, else SourceError: of a clone, the files lie elsewhere."""
    if "://" in path or not is_inside(path):
        raise SourceError(f"{uri}: its file {path} does not lie in the table's own folder; {EXPORT}")
    return path


def refuse_tables(uri: str, tables: Mapping[str, str]) -> None:
    """Raise ConfigurationError where a folder of plain files holds tables in its subfolders."""
    if not tables:
        return
    by_kind: dict[str, list[str]] = defaultdict(list)
    for folder, kind in sorted(tables.items()):
        by_kind[NAMES[kind]].append(folder or "the folder itself")
    named = "; ".join(
        f"{', '.join(folders[:_SHOWN])}{', …' if len(folders) > _SHOWN else ''}: {name}"
        for name, folders in by_kind.items()
    )
    raise ConfigurationError(
        f"source.uri: {uri} holds tables beside or in place of plain files ({named}), whose files are not to be "
        "read one by one: old and deleted rows are among them; name one table's folder as source.uri, or leave "
        "the tables out by source.exclude"
    )


def refuse_inside(uri: str) -> None:
    """Raise ConfigurationError where a source lies in a table's folder: a partition, say, or one of its files."""
    for above in dict.fromkeys((*_above(uri), *_above(real_uri(uri)))):
        try:
            kind = table_at(open_storage(above))
        except (BatchAssetsError, OSError):  # no access above the source is no fault of the source
            continue
        if kind is not None:
            raise ConfigurationError(
                f"source.uri: {uri} lies inside {above}, {NAMES[kind]}; its files hold old and deleted rows, so "
                f"name the table's own folder, {above}"
            )


def _above(uri: str) -> Iterator[str]:
    """The next few folders above, a bucket among them; the root of a file system is not looked at."""
    for _ in range(_LEVELS):
        uri = uri.rpartition("/")[0]
        if not uri or uri.endswith(":/"):
            return
        yield uri
