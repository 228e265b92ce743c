"""A generation's plan as files: `plan/g0001.parquet` with a row per segment, `plan/g0001.json` beside it.

The Parquet file is created once, whole, and holds everything, the summary too: whoever comes
second, or after a crash between the two files, takes what it says. A file without records has
a row of its own, with an empty shard key.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch_assets import paths
from batch_assets.errors import LastingStorageError
from batch_assets.sharding.plan import PlanSummary, Shard
from batch_assets.sharding.plan_checks import MOST_ROWS, check_table, parse_summary
from batch_assets.sources.base import Segment, SourceFile
from batch_assets.storage import Storage, join_uri

_SUMMARY = b"batch_assets.summary"
_SCHEMA = pa.schema(
    [
        ("shard", pa.string()),
        ("path", pa.string()),
        ("version", pa.string()),
        ("first_row", pa.int64()),
        ("last_row", pa.int64()),
        ("first_byte", pa.int64()),
        ("last_byte", pa.int64()),
        ("records", pa.int64()),
        ("spool", pa.string()),
        ("file_size", pa.int64()),
        ("file_records", pa.int64()),
        ("file_next_row", pa.int64()),
        ("file_next_byte", pa.int64()),
        ("file_complete", pa.bool_()),
    ]
)
_SEGMENT = ["path", "version", "first_row", "last_row", "first_byte", "last_byte", "records", "spool"]


def write_plan(storage: Storage, summary: PlanSummary, shards: Sequence[Shard]) -> bool:
    """Publish a plan; False where its generation is planned already, by another or before a crash.

    Either way the generation is complete when this returns: read it, do not go on from `shards`.
    """
    created = storage.create(paths.plan(summary.generation), _table_bytes(summary, shards))
    if not created:
        _complete(storage, summary.generation)
    else:
        storage.create(paths.plan_summary(summary.generation), _summary_bytes(summary))
    return created


def read_plan(storage: Storage, generation: int) -> tuple[PlanSummary, list[Shard]]:
    """The summary, with its files, and all shards in order. Raises FileNotFoundError where there is none."""
    summary, table = _read(storage, generation)
    return dataclasses.replace(summary, files=_files(table)), _shards(table)


def read_shards(storage: Storage, generation: int, keys: Sequence[str]) -> list[Shard]:
    """Some of a generation's shards, in the plan's order; unknown keys are left out."""
    _, table = _read(storage, generation)
    wanted = pc.SetLookupOptions(pa.array(keys, pa.string()))
    return _shards(table.filter(pc.call_function("is_in", [table.column("shard")], wanted)))


def read_summary(storage: Storage, generation: int) -> PlanSummary:
    """The summary without its files. Raises FileNotFoundError where there is no such generation."""
    path = paths.plan_summary(generation)
    try:
        data = storage.read(path)
    except FileNotFoundError:
        _complete(storage, generation)
        data = storage.read(path)
    try:
        return parse_summary(data, generation)
    except ValueError as error:
        raise LastingStorageError(
            f"{join_uri(storage.uri, path)}: is not a plan's summary ({error}); delete it: it is written again "
            f"from {paths.plan(generation)}"
        ) from error


def generations(storage: Storage) -> list[int]:
    """The generations planned so far, ascending. One without its summary yet is among them."""
    found = (paths.plan_generation(info.path) for info in storage.list("plan"))
    return sorted(generation for generation in found if generation is not None)


def _complete(storage: Storage, generation: int) -> None:
    """Write the summary that a planner did not come to write."""
    _, table = _read(storage, generation)
    metadata = table.schema.metadata
    storage.create(paths.plan_summary(generation), metadata[_SUMMARY])


def _table_bytes(summary: PlanSummary, shards: Sequence[Shard]) -> bytes:
    files = {file.path: file for file in summary.files}
    reused = SourceFile("", 0, "", 0)  # a file of an earlier generation, of which segments are taken over
    columns: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}

    def add(shard: str, segment: Segment, file: SourceFile) -> None:
        columns["shard"].append(shard)
        for name in _SEGMENT:
            columns[name].append(getattr(segment, name))
        columns["file_size"].append(file.size if file is not reused else None)
        columns["file_records"].append(file.records)
        columns["file_next_row"].append(file.next_row)
        columns["file_next_byte"].append(file.next_byte)
        columns["file_complete"].append(file.complete)

    seen: set[str] = set()
    for shard in shards:
        for segment in shard.segments:
            seen.add(segment.path)
            add(shard.key, segment, files.get(segment.path, reused))
    for file in summary.files:
        if file.path not in seen:
            add("", Segment(file.path, file.version, 0, 0, 0, 0, 0), file)
    table = pa.Table.from_pydict(columns, schema=_SCHEMA.with_metadata({_SUMMARY: _summary_bytes(summary)}))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", compression_level=1)
    return sink.getvalue().to_pybytes()


def _read(storage: Storage, generation: int) -> tuple[PlanSummary, pa.Table]:
    """A generation's summary, without its files, and its rows. Raises StorageError where they make no sense."""
    data = storage.read(paths.plan(generation))
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        schema = file.schema_arrow
        if not schema.equals(_SCHEMA):
            raise ValueError("it has other columns")
        if file.metadata.num_rows > MOST_ROWS:
            raise ValueError(f"it has {file.metadata.num_rows:,} rows")
        if _SUMMARY not in (schema.metadata or {}):
            raise ValueError("it holds no summary")
        summary = parse_summary(schema.metadata[_SUMMARY], generation)
        table = file.read(use_threads=False)
        check_table(table)
    except (pa.ArrowException, OSError, ValueError) as error:
        uri = join_uri(storage.uri, paths.plan(generation))
        raise LastingStorageError(
            f"{uri}: is not a plan ({error}); restore it from a copy of the output root"
        ) from error
    return summary, table


def _shards(table: pa.Table) -> list[Shard]:
    shards: dict[str, list[Segment]] = {}
    for batch in table.to_batches(max_chunksize=65_536):
        keys = batch.column("shard").to_pylist()
        values = zip(*(batch.column(name).to_pylist() for name in _SEGMENT), strict=True)
        for key, row in zip(keys, values, strict=True):
            if key:
                shards.setdefault(key, []).append(Segment(*row))
    return [Shard(key, tuple(segments)) for key, segments in shards.items()]


def _files(table: pa.Table) -> list[SourceFile]:
    own = table.filter(table.column("file_size").is_valid())
    names = [
        "path",
        "file_size",
        "version",
        "file_records",
        "file_next_row",
        "file_next_byte",
        "file_complete",
    ]
    rows = zip(*(own.column(name).to_pylist() for name in names), strict=True)
    files = {row[0]: SourceFile(*row) for row in rows}
    return sorted(files.values(), key=lambda file: file.path)


def _summary_bytes(summary: PlanSummary) -> bytes:
    content = {field.name: getattr(summary, field.name) for field in dataclasses.fields(summary)}
    content["files"] = len(summary.files)
    return orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n"
