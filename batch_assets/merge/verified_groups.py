"""Whether a version's groups hold the rows they should: each in its own group, and each once.

That the parts are whole and how many rows they have is checked before (`verified_version.py`).
"""

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch_assets import paths
from batch_assets.embeddings.parquet_files import open_parquet
from batch_assets.errors import AccountingError
from batch_assets.merge.base import Manifest, Part
from batch_assets.merge.groups import group_values, grouped_column, name_of
from batch_assets.merge.verified_shards import VerifiedShard
from batch_assets.storage import Storage
from batch_assets.storage.threads import map_in_order, threads_for

Hashes = npt.NDArray[np.uint64]


def verify_groups(storage: Storage, manifest: Manifest, shards: Mapping[str, VerifiedShard]) -> Iterator[str]:
    """What is wrong with the groups, a sentence each."""
    counted: dict[str | None, int] = {}
    merged = 0
    try:
        checked = map_in_order(
            lambda part: _check_part(storage, manifest, part), manifest.parts, threads_for(storage)
        )
        for part, total in zip(manifest.parts, checked, strict=True):
            counted[part.group] = counted.get(part.group, 0) + part.rows
            merged += total
    except AccountingError as error:
        yield str(error)
        return
    path = paths.merged_manifest(manifest.version)
    if counted != {group.name: group.rows for group in manifest.groups}:
        yield f"{path}: the rows of its groups are not those of their parts; merge again"
    yield from _compare_records(storage, manifest, shards, merged)


def _compare_records(
    storage: Storage, manifest: Manifest, shards: Mapping[str, VerifiedShard], merged: int
) -> Iterator[str]:
    """Whether the groups together hold the records of the merged shards, as far as those are still the same."""
    markers = [shard.marker for key in manifest.merged_shards if (shard := shards.get(key.shard)) is not None]
    own = {shard.shard: shard.source_sha256 for shard in manifest.merged_shards}
    same = [marker for marker in markers if marker and marker.embeddings.sha256 == own[marker.shard]]
    if len(same) < len(own):
        return
    found = map_in_order(
        lambda marker: sum(int(one.sum()) for one in _hashes(storage, marker.embeddings.path)),
        same,
        threads_for(storage),
    )
    if (sum(found) - merged) % 2**64:
        yield (
            f"{paths.merged_manifest(manifest.version)}: its groups do not hold each record of its shards once; "
            "merge again"
        )


def _check_part(storage: Storage, manifest: Manifest, part: Part) -> int:
    """The sum of the hashes of the part's records. Raises AccountingError where one is in a wrong group."""
    path = manifest.path(part)
    by = str(manifest.merge_by)
    column = grouped_column(by)
    with open_parquet(storage, path) as file:
        for batch in file.iter_batches(columns=[column]):
            for value in group_values(by, batch.column(column)).unique().to_pylist():
                name = name_of(value)
                if name != part.group:
                    raise AccountingError(f"{path}: has rows of group {name!r}, it is of {part.group!r}")
    return sum(int(one.sum()) for one in _hashes(storage, path))


def _hashes(storage: Storage, path: str) -> Iterator[Hashes]:
    """A number (n,) for each record of a file, made of where it was read: (source file, source row)."""
    with open_parquet(storage, path) as file:
        for batch in file.iter_batches(columns=["source_file", "source_row"]):
            files = batch.column("source_file").dictionary_encode()
            names = [hashlib.sha256(str(name).encode()).digest()[:8] for name in files.dictionary.to_pylist()]
            bases = np.array([int.from_bytes(name) for name in names], dtype=np.uint64)
            indices: pa.Array = files.indices
            rows = batch.column("source_row").to_numpy().astype(np.uint64)
            yield _mixed(bases[indices.to_numpy()] ^ _mixed(rows)) if len(batch) else rows


def _mixed(numbers: Hashes) -> Hashes:
    """The finalizer of splitmix64 (Steele, Lea, Flood 2014): every bit of the input moves every bit of the output."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
