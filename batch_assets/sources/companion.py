"""What img2dataset writes beside a tar: a Parquet file with the metadata of its samples."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.sources.arrays import natural_array
from batch_assets.sources.files import broken
from batch_assets.sources.images import holds_files
from batch_assets.storage import Storage


class Companion:
    """The metadata of the samples of tar `path`, by key: a row of the Parquet file of the same name, or None.

    The file is read when it is asked for the first time; `version` is "" where there is none. Rows of
    images that could not be downloaded are in it, but not in the tar: nobody asks for them.
    """

    def __init__(self, storage: Storage, path: str) -> None:
        self._storage = storage
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
            with pq.ParquetFile(self._storage.open_input(self._path)) as parquet:
                schema = parquet.schema_arrow
                names = [name for name in schema.names if not holds_files(schema.field(name).type)]
                table = parquet.read(names, use_threads=False)
        except pa.ArrowException as error:
            raise broken(self._storage, self._path, "Parquet", error) from error
        if "key" not in names:
            return {}
        columns = [natural_array(column.combine_chunks()).to_pylist() for column in table.columns]
        rows = (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))
        return {str(row["key"]): row for row in rows}
