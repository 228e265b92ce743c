"""What is planned of one source so far, in one file: `plan/known-<digest>.parquet`.

Planning reads it in place of all the plans up to its generation. It holds nothing that the plans do
not hold, and whoever finds none, or a damaged one, reads those. Shards are not in it: who replaces
some reads all plans.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets import paths
from batch_assets.sources.base import SourceFile
from batch_assets.storage import Storage

_TOLD = b"batch_assets.known"
_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("size", pa.int64()),
        ("version", pa.string()),
        ("records", pa.int64()),
        ("next_row", pa.int64()),
        ("next_byte", pa.int64()),
        ("complete", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class Snapshot:
    """The files of a source as all generations up to `generation` leave them, and the records that count."""

    generation: int
    records: int
    files: dict[str, SourceFile]


def read_snapshot(storage: Storage, base_uri: str) -> Snapshot | None:
    """The snapshot of the source at `base_uri`; None where there is none that can be read."""
    found = storage.read_versioned(paths.plan_snapshot(base_uri))
    return None if found is None else _parse(found[0], base_uri)


def write_snapshot(
    storage: Storage, base_uri: str, generation: int, records: int, files: Iterable[SourceFile]
) -> None:
    """Put a snapshot in the place of an older one. One of somebody else, or a newer one, stays."""
    path, data = paths.plan_snapshot(base_uri), _content(base_uri, generation, records, files)
    found = storage.read_versioned(path)
    if found is None:
        storage.create(path, data)
        return
    before = _parse(found[0], base_uri)
    if before is not None and before.generation < generation:
        storage.replace(path, data, found[1])


def _content(base_uri: str, generation: int, records: int, files: Iterable[SourceFile]) -> bytes:
    told = orjson.dumps({"base_uri": base_uri, "generation": generation, "records": records})
    columns: dict[str, list[object]] = {name: [] for name in _SCHEMA.names}
    for file in files:
        for name, values in columns.items():
            values.append(getattr(file, name))
    table = pa.Table.from_pydict(columns, schema=_SCHEMA.with_metadata({_TOLD: told}))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", compression_level=1)
    return sink.getvalue().to_pybytes()


def _parse(data: bytes, base_uri: str) -> Snapshot | None:
    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
        told = orjson.loads((table.schema.metadata or {})[_TOLD])
        rows = zip(*(table.column(name).to_pylist() for name in _SCHEMA.names), strict=True)
        files = {row[0]: SourceFile(*row) for row in rows}
        if told["base_uri"] == base_uri:
            return Snapshot(told["generation"], told["records"], files)
    except (pa.ArrowException, ValueError, KeyError):
        pass
    return None
