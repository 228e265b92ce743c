"""Whether a shard's files hold exactly the records that the plan put into it, each once, in source order.

Counting alone would not see one record twice and another one not at all. Records are told by
(source file, source row), so the source itself is not read.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batch_assets.embeddings.marker import ShardMarker
from batch_assets.embeddings.parquet_files import open_parquet
from batch_assets.errors import AccountingError
from batch_assets.sharding.plan import Shard
from batch_assets.storage import Storage

# A key is (file's place among the shard's files) << 44 | row: it sorts as the source does.
_ROW_BITS = 44

Keys = npt.NDArray[np.int64]


def check_provenance(storage: Storage, shard: Shard, marker: ShardMarker) -> None:
    """Raise AccountingError where a record is missing, twice, foreign or out of order."""
    files = {path: place for place, path in enumerate(dict.fromkeys(part.path for part in shard.segments))}
    found: list[Keys] = []
    for path in (marker.embeddings.path, marker.failures.path):
        keys = np.concatenate([np.empty(0, dtype=np.int64), *_keys(storage, path, list(files))])
        if np.any(np.diff(keys) < 0):
            raise AccountingError(f"{path}: rows are not in source order")
        found.append(keys)
    merged = np.sort(np.concatenate(found))
    if len(twice := np.flatnonzero(np.diff(merged) == 0)):
        raise AccountingError(f"shard {shard.key}: {_named(int(merged[twice[0]]), files)} is there twice")
    inside = 0
    for segment in shard.segments:
        base = files[segment.path] << _ROW_BITS
        ends = np.array([base + segment.first_row, base + segment.last_row])
        first, last = np.searchsorted(merged, ends)
        inside += int(last - first)
        if last - first != segment.records:
            raise AccountingError(
                f"shard {shard.key}: {segment.records} records of {segment.path} rows {segment.first_row} "
                f"to {segment.last_row - 1} are planned, {last - first} are in its files"
            )
    if inside != len(merged):
        raise AccountingError(
            f"shard {shard.key}: {len(merged) - inside} rows are of records not planned for it"
        )


def _keys(storage: Storage, path: str, files: list[str]) -> Iterator[Keys]:
    known = pa.array(files, type=pa.string())
    with open_parquet(storage, path) as file:
        for batch in file.iter_batches(columns=["source_file", "source_row"]):
            places = pc.index_in(batch.column("source_file"), value_set=known)  # pyright: ignore[reportAttributeAccessIssue]
            if places.null_count:
                foreign = batch.column("source_file").filter(places.is_null())[0]
                raise AccountingError(f"{path}: has rows of {foreign}, which its shard does not hold")
            rows = batch.column("source_row").to_numpy()
            yield (places.to_numpy().astype(np.int64) << _ROW_BITS) | rows


def _named(key: int, files: dict[str, int]) -> str:
    path = list(files)[key >> _ROW_BITS]
    return f"{path} row {key & ((1 << _ROW_BITS) - 1)}"
