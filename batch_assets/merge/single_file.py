"""The published rows once more, as one file at the root: `embeddings.parquet`, with `metadata.json` beside it.

For programs that want one file and know its columns: url, key, caption, embedding, meta_*. The
dataset itself stays what `merged/CURRENT` names; the two files follow it, and each says of which
version it is, so that the next call finds out what a crash, or another writer, left behind.
"""

from collections.abc import Sequence

import orjson
import pyarrow as pa

from batch_assets import paths
from batch_assets.embeddings.parquet_files import GroupedWriter, open_parquet
from batch_assets.embeddings.schema import EMBEDDING, LEADING, TOKEN_COUNT, data_schema
from batch_assets.errors import AccountingError, ConfigurationError
from batch_assets.merge.base import Manifest
from batch_assets.merge.publishing import is_version, open_current
from batch_assets.retry_policy import SINGLE_FILE_TRIES
from batch_assets.storage import Storage, join_uri

FIRST = ("url", "key", "caption", EMBEDDING)
META = "meta_"
_VERSION = b"batch_assets:version"


def write_single_file(storage: Storage) -> None:
    """Bring the two files up to the published version, where they are not.

    Each is replaced as a whole, the rows first; memory stays within two row groups. Raises
    AccountingError where a part is not what the manifest says, or others publish all the while,
    and ConfigurationError where a file of somebody else has one of the names.
    """
    for _ in range(SINGLE_FILE_TRIES):
        manifest = open_current(storage)
        if manifest is None:
            return
        refuse_others_files(storage)
        rows_are_old = _version_of_rows(storage) != manifest.version
        if not rows_are_old and _version_of_metadata(storage) == manifest.version:
            return
        if rows_are_old:
            _write_rows(storage, manifest)
        storage.write(paths.SINGLE_METADATA, _metadata(storage, manifest))
        # Looked at again from the top: of several writers the last one sees the newest version in both.
    raise AccountingError(
        f"{paths.SINGLE_FILE} under {storage.uri}: {SINGLE_FILE_TRIES} times in a row something else was published "
        "while it was written; run the pipeline again when the others' runs have ended"
    )


def refuse_others_files(storage: Storage) -> None:
    """Raise ConfigurationError where one of the two files is there and is not what this program has written.

    One that cannot be read is a damaged one of ours only where the other says so.
    """
    versions = {
        paths.SINGLE_FILE: _version_of_rows(storage),
        paths.SINGLE_METADATA: _version_of_metadata(storage),
    }
    ours = any(version is not None and is_version(version) for version in versions.values())
    for name, version in versions.items():
        others = not is_version(version) if version is not None else not ours
        if others and storage.info(name) is not None:
            raise ConfigurationError(
                f"{join_uri(storage.uri, name)}: is there already, and is not what output.single_file has written; "
                "move it away, or leave output.single_file out"
            )


def column_order(names: Sequence[str]) -> list[str]:
    """The file's columns: url, key, caption, embedding, meta_*, then all others but the record's own place."""
    kept = [name for name in names if name not in (*LEADING, TOKEN_COUNT)]
    first = [name for name in FIRST if name in kept]
    meta = [name for name in kept if name.startswith(META)]
    return [*first, *meta, *(name for name in kept if name not in first and name not in meta)]


def _write_rows(storage: Storage, manifest: Manifest) -> None:
    whole = data_schema(manifest.columns, manifest.dimensions, manifest.vector_dtype, manifest.task)
    names = column_order(whole.names)
    schema = pa.schema([whole.field(name) for name in names], {_VERSION: manifest.version.encode()})
    writer = GroupedWriter(storage, paths.SINGLE_FILE, schema)
    try:
        for part in manifest.parts:
            with open_parquet(storage, manifest.path(part)) as file:
                for group in range(file.num_row_groups):
                    rows = file.read_row_group(group, columns=names, use_threads=False)
                    writer.append(pa.Table.from_arrays([rows.column(name) for name in names], schema=schema))
        if writer.rows != manifest.rows:
            raise AccountingError(
                f"{paths.SINGLE_FILE}: {writer.rows} rows were read of version {manifest.version}, whose manifest "
                f"says {manifest.rows}; `batch-assets verify` tells which part is wrong"
            )
    except BaseException:
        writer.abort()
        raise
    writer.close()


def _metadata(storage: Storage, manifest: Manifest) -> bytes:
    path = paths.merged_metadata(manifest.version)
    try:
        model = orjson.loads(storage.read(path))["model"]
    except (ValueError, KeyError, TypeError) as error:
        raise AccountingError(
            f"{join_uri(storage.uri, path)}: does not name the model ({error!r}); restore it from a copy"
        ) from None
    content = {
        "num_samples": manifest.rows,
        "model": model,
        "timestamp": manifest.created,
        "version": manifest.version,
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n"


def _version_of_rows(storage: Storage) -> str | None:
    """The version in the footer, empty where it names none; None where there is no whole file."""
    try:
        with open_parquet(storage, paths.SINGLE_FILE) as file:
            return (file.schema_arrow.metadata or {}).get(_VERSION, b"").decode("utf-8", "replace")
    except AccountingError:
        return None


def _version_of_metadata(storage: Storage) -> str | None:
    """The same of the other file."""
    found = storage.read_versioned(paths.SINGLE_METADATA)
    if found is None:
        return None
    try:
        content = orjson.loads(found[0])
    except orjson.JSONDecodeError:
        return None
    version = content.get("version") if isinstance(content, dict) else None
    return version if isinstance(version, str) else ""
