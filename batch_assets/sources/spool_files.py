"""Spools as files: Parquet under the pipeline's root, a row per record, ordered by its first column `row`.

What a spool's other columns say is the business of the source that writes it.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets import paths
from batch_assets.errors import SourceError
from batch_assets.plain_text import plain_logger
from batch_assets.sources.base import BATCH_RECORDS
from batch_assets.storage import Storage, join_uri

logger = plain_logger(__name__)
GROUP_ROWS = 65_536
GROUP_BYTES = 2 * 2**20
DIGEST = b"batch_assets.spool"


def spool_digest(parts: Iterable[str]) -> str:
    """What a spool is called that `parts` decide on."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


class Spools:
    """The spools under one output root. `written` are the paths of those that were written through this object."""

    def __init__(self, root: Storage) -> None:
        self.written: list[str] = []
        self.root = root

    def write(self, parts: Sequence[str], schema: pa.Schema, rows: Iterator[pa.RecordBatch]) -> str:
        """Write the spool that `parts` decide on, unless it is there; returns its digest.

        Each batch of `rows` becomes a row group. They are not asked for where the spool is there.
        """
        digest = spool_digest(parts)
        if self.root.info(paths.spool(digest)) is None:
            self.fill(digest, schema, rows)
        return digest

    def fill(self, digest: str, schema: pa.Schema, rows: Iterator[pa.RecordBatch]) -> None:
        """Write a spool, whole or not at all; each batch of `rows` becomes a row group."""
        path = paths.spool(digest)
        with (
            self.root.open_output(path) as output,
            pq.ParquetWriter(
                output, schema.with_metadata({DIGEST: digest}), compression="zstd", use_dictionary=False
            ) as writer,
        ):
            for batch in rows:
                writer.write_batch(batch, row_group_size=GROUP_ROWS)
        self.written.append(path)

    def read(
        self,
        path: str,
        spool: str,
        first_row: int,
        last_row: int | None,
        make_again: Callable[[], bool],
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a range of physical rows of source file `path`, in batches that are not empty.

        A spool that was cleaned away is made once more: `make_again` does, and says whether it could.
        """
        try:
            file = self.root.open_input(paths.spool(spool))
        except FileNotFoundError:
            logger.info("%s: its spool is not there; it is made again", path)
            if not make_again():
                raise SourceError(
                    f"{path}: its normalized copy {join_uri(self.root.uri, paths.spool(spool))} is missing, and "
                    "the file is no longer what it was made from; put it back, or `plan --replace` plans the file anew"
                ) from None
            file = self.root.open_input(paths.spool(spool))
        with file, pq.ParquetFile(file, pre_buffer=False, buffer_size=2**20) as parquet:
            metadata = parquet.metadata
            for group in range(metadata.num_row_groups):
                statistics = metadata.row_group(group).column(0).statistics
                if statistics.max < first_row or (last_row is not None and statistics.min >= last_row):
                    continue
                for batch in parquet.iter_batches(BATCH_RECORDS, row_groups=[group], use_threads=False):
                    rows = batch.column("row").to_numpy()
                    start = int(np.searchsorted(rows, first_row))
                    end = len(rows) if last_row is None else int(np.searchsorted(rows, last_row))
                    if end > start:
                        yield batch.slice(start, end - start)


def is_spool(root: Storage, path: str) -> bool:
    """Whether the file says of itself that it is the spool of its name. Others may have files in the same folder."""
    try:
        with root.open_input(path) as file:
            metadata = pq.read_schema(file).metadata or {}
    except (pa.ArrowException, OSError):
        return False
    return paths.spool(metadata.get(DIGEST, b"").decode("utf-8", "replace")) == path


def damaged_spool(path: str, spool: str) -> SourceError:
    """The error for a spool with fewer rows than were planned from it."""
    return SourceError(f"{path}: its spool is not whole; delete {paths.spool(spool)} and plan again")
