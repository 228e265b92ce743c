"""A part of a merged version, opened to be read: what it holds is what its manifest says, or an error says it is not.

What readers do with the rows is theirs (`search.py`, `published.py`). The proof of every byte is
`verified_version.py`.
"""

import contextlib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.embeddings.parquet_files import open_parquet
from batch_assets.embeddings.schema import data_schema
from batch_assets.errors import AccountingError
from batch_assets.merge.base import Manifest, Part
from batch_assets.storage import Storage


def rows_schema(manifest: Manifest) -> pa.Schema:
    """The columns of every part of a version."""
    return data_schema(manifest.columns, manifest.dimensions, manifest.vector_dtype, manifest.task)


@contextlib.contextmanager
def open_part(storage: Storage, manifest: Manifest, part: Part) -> Iterator[pq.ParquetFile]:
    """A part to read; AccountingError where its rows or columns are not those that its manifest tells of."""
    path = manifest.path(part)
    with open_parquet(storage, path) as file:
        # Of such columns no value is null that must not be, and no vector has another length.
        if not file.schema_arrow.equals(rows_schema(manifest)):
            raise AccountingError(f"{path}: its columns are not those of its manifest; merge again")
        if file.metadata.num_rows != part.rows:
            raise AccountingError(
                f"{path}: holds {file.metadata.num_rows} rows, its manifest says {part.rows}; merge again"
            )
        yield file
