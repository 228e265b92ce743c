"""What img2dataset writes beside a tar: a Parquet file with the metadata of its samples."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from batch_assets.errors import UnreadableFile
from batch_assets.sources.base import BATCH_RECORDS
from batch_assets.sources.decoded import batch_bytes
from batch_assets.sources.images import holds_files, is_made_of_files
from batch_assets.sources.parquet_batches import batches
from batch_assets.sources.parquet_files import open_parquet, parquet_errors, reopener
from batch_assets.sources.parquet_groups import check_rows
from batch_assets.sources.value_texts import values_of
from batch_assets.storage import Storage, join_uri

_MOST_BYTES = 512 * 2**20  # the metadata of some ten thousand samples take twenty MiB
# What Python takes for a row and for each of its values, beside the bytes of the value.
_ROW_BYTES, _VALUE_BYTES = 400, 60


class Companion:
    """The metadata of the samples of tar `path`, by key: a row of the Parquet file of the same name, or None.

    The file is read when it is asked for the first time; `version` is "" where there is none. Rows of
    images that could not be downloaded are in it, but not in the tar: nobody asks for them.
    """

    def __init__(self, storage: Storage, path: str) -> None:
        self._storage = storage
        self._tar = path
        self._path = path.rpartition(".")[0] + ".parquet"
        info = storage.info(self._path)
        self.version = info.version if info is not None else ""

    def __call__(self, key: str) -> Mapping[str, Any] | None:
        return self._rows.get(key) or self._rows.get(key.rpartition("/")[2])

    @cached_property
    def _rows(self) -> dict[str, dict[str, Any]]:
        if not self.version:
            return {}
        try:
            return self._read()
        except UnreadableFile as error:
            raise UnreadableFile(
                f"{error}; {self._tar} waits for it, or is planned without it where it is moved away",
                (self._path, self.version),
            ) from error

    def _read(self) -> dict[str, dict[str, Any]]:
        rows: dict[str, dict[str, Any]] = {}
        size = 0
        with (
            parquet_errors(self._storage, self._path),
            open_parquet(self._storage, self._path) as parquet,
        ):
            check_rows(parquet.metadata)
            schema = parquet.schema_arrow
            files = {
                field.name for field in schema if holds_files(field.type) or is_made_of_files(field.type)
            }
            names = [name for name in schema.names if name not in files]
            if "key" not in names:
                return {}
            reopen = reopener(self._storage, self._path, parquet.metadata)
            for _, batch in batches(parquet, reopen, names, BATCH_RECORDS, 0, parquet.metadata.num_rows):
                size += batch_bytes(batch) + len(batch) * (_ROW_BYTES + batch.num_columns * _VALUE_BYTES)
                if size > _MOST_BYTES:
                    raise UnreadableFile(
                        f"{join_uri(self._storage.uri, self._path)}: decodes to more than the {_MOST_BYTES:,} bytes of "
                        "metadata that are held in memory for a tar; split the tar and this file, or move it away"
                    )
                columns = [values_of(column) for column in batch.columns]
                for values in zip(*columns, strict=True):
                    row = dict(zip(batch.schema.names, values, strict=True))
                    rows[str(row["key"])] = row
        return rows
