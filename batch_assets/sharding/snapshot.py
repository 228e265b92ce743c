"""What is planned of one source so far, in one file: `plan/known-<digest>.parquet`.

Planning reads it in place of all the plans up to its generation. It holds nothing that the plans do
not hold, and whoever finds none, or a damaged one, reads those. Shards are not in it: who replaces
some reads all plans.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets import paths
from batch_assets.sharding.plan import PlanSummary
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
    """The files of a source as all generations up to `generation` leave them, and the records that count.

    `plans` names those generations (see `plans_named`), so that others in their place are noticed.
    """

    generation: int
    plans: str
    records: int
    files: dict[str, SourceFile]


def plans_named(generations: Iterable[int], newest: PlanSummary) -> str:
    """A digest (hex) of which generations there are, and of the summary of the newest of them."""
    told = f"{list(generations)} {newest.created} {newest.shards} {newest.records} {newest.bytes}"
    return hashlib.sha256(told.encode()).hexdigest()


def read_snapshot(storage: Storage, base_uri: str) -> Snapshot | None:
    """The snapshot of the source at `base_uri`; None where there is none that can be read."""
    found = storage.read_versioned(paths.plan_snapshot(base_uri))
    return None if found is None else _parse(found[0], base_uri)


def write_snapshot(storage: Storage, base_uri: str, snapshot: Snapshot) -> None:
    """Put a snapshot in the place of another one of this source; what somebody else has written stays."""
    path, data = paths.plan_snapshot(base_uri), _content(base_uri, snapshot)
    found = storage.read_versioned(path)
    if found is None:
        storage.create(path, data)
    elif _parse(found[0], base_uri) is not None:
        storage.replace(path, data, found[1])


def _content(base_uri: str, snapshot: Snapshot) -> bytes:
    told: dict[str, object] = {
        "base_uri": base_uri,
        "generation": snapshot.generation,
        "plans": snapshot.plans,
    }
    columns: dict[str, list[object]] = {name: [] for name in _SCHEMA.names}
    for file in snapshot.files.values():
        for name, values in columns.items():
            values.append(getattr(file, name))
    table = pa.Table.from_pydict(columns, schema=_SCHEMA)
    told["records"] = snapshot.records
    told["digest"] = _digest(told, table)
    table = table.replace_schema_metadata({_TOLD: orjson.dumps(told)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", compression_level=1)
    return sink.getvalue().to_pybytes()


def _parse(data: bytes, base_uri: str) -> Snapshot | None:
    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
        told = orjson.loads((table.schema.metadata or {})[_TOLD])
        if told.pop("digest") != _digest(told, table) or told["base_uri"] != base_uri:
            return None
        rows = zip(*(table.column(name).to_pylist() for name in _SCHEMA.names), strict=True)
        files = {row[0]: SourceFile(*row) for row in rows}
        return Snapshot(told["generation"], told["plans"], told["records"], files)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        return None  # damaged, or somebody else's


def _digest(told: dict[str, object], table: pa.Table) -> str:
    """Of all that the snapshot says (hex): a bit that has flipped since would else be believed."""
    digest = hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS))
    for name in _SCHEMA.names:
        digest.update(repr(table.column(name).to_pylist()).encode())
    return digest.hexdigest()
