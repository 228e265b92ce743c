"""The files of a merged version: shards as they are, or their rows by group, and one file of failures.

Which groups there are is known before (`groups.py`). What a version is called, and when it is
finished, is `parquet.py`'s business.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets import paths
from batch_assets.crash_points import crash_point
from batch_assets.embeddings.accounting import count_stages_of
from batch_assets.embeddings.parquet_files import GROUP_ROWS, DataFile, GroupedWriter, open_parquet
from batch_assets.embeddings.schema import FAILURES_SCHEMA, data_schema
from batch_assets.errors import AccountingError
from batch_assets.merge.base import FailuresPart, Group, MergedShard, Part, Progress
from batch_assets.merge.copying import check_file, copy_file, read_file
from batch_assets.merge.groups import ColumnGroups
from batch_assets.merge.inputs import Input, Inputs
from batch_assets.merge.splitting import split_by_column
from batch_assets.merge.unify import conform
from batch_assets.storage import Storage
from batch_assets.storage.threads import map_in_order, threads_for

CASTING_THREADS = 2


@dataclass(frozen=True)
class Made:
    """The files of a version."""

    parts: list[Part]
    shards: list[MergedShard]
    failures: FailuresPart
    groups: list[Group] = field(default_factory=list)


@dataclass
class Steps:
    """How far a merge is, told to whoever wants to know."""

    planned: int
    progress: Progress | None
    done: int = 0

    def add(self, records: int) -> None:
        self.done += records
        if self.progress is not None:
            self.progress(self.done, self.planned)

    def reach(self, share: float) -> None:
        self.add(round(self.planned * share) - self.done)


def write_whole(
    storage: Storage,
    schema: pa.Schema,
    inputs: Inputs,
    group_of: Mapping[str, Group] | None,
    version: str,
    steps: Steps,
) -> Made:
    """Each shard is a part, in its group's folder where there are groups."""
    # A cast holds a few row groups in memory, a copy next to nothing.
    threads = threads_for(storage) if len(inputs.layouts) == 1 else CASTING_THREADS
    numbers: Counter[str | None] = Counter()
    items: list[tuple[Input, str, str | None]] = []
    for shard in inputs.shards:
        group = group_of[shard.shard] if group_of is not None else None
        folder = group.folder if group is not None else None
        items.append(
            (shard, paths.merged_part(version, numbers[folder], folder), group.name if group else None)
        )
        numbers[folder] += 1
    parts: list[Part] = []
    made: list[MergedShard] = []
    with _failures(storage, version) as failures:
        for one in map_in_order(partial(_copy_shard, storage, version, schema), items, threads):
            failures.add(one.failures)
            parts.append(one.part)
            made.append(one.shard)
            steps.add(one.shard.planned)
        written = failures.close()
    rows: Counter[str | None] = Counter()
    for part in parts:
        rows[part.group] += part.rows
    groups = dict.fromkeys(group_of.values()) if group_of is not None else ()
    return Made(parts, made, written, [replace(group, rows=rows[group.name]) for group in groups])


def write_split(
    storage: Storage, schema: pa.Schema, inputs: Inputs, counted: ColumnGroups, version: str, steps: Steps
) -> Made:
    """Each group has the rows of its value, of whatever shards."""
    made: list[MergedShard] = []
    with _failures(storage, version) as failures:
        for content, shard in map_in_order(partial(_account, storage), inputs.shards, threads_for(storage)):
            failures.add(content)
            made.append(shard)
        written = failures.close()
    groups, parts = split_by_column(storage, version, schema, inputs.shards, counted, steps.reach)
    return Made(parts, made, written, groups)


class _Failures:
    """The version's file of failures, to which each shard's is added."""

    def __init__(self, storage: Storage, version: str) -> None:
        self._version = version
        self._writer = GroupedWriter(storage, paths.merged_failures(version), FAILURES_SCHEMA)

    def add(self, content: bytes) -> None:
        for batch in _batches(content):
            self._writer.append(pa.Table.from_batches([batch], FAILURES_SCHEMA))

    def close(self) -> FailuresPart:
        file = self._writer.close()
        return FailuresPart(_uri(file, self._version), file.rows, file.bytes, file.sha256)

    def abort(self) -> None:
        self._writer.abort()


@contextlib.contextmanager
def _failures(storage: Storage, version: str) -> Iterator[_Failures]:
    failures = _Failures(storage, version)
    try:
        yield failures
    except BaseException:
        failures.abort()
        raise


@dataclass(frozen=True)
class _Copied:
    """One shard's part, and its failures file as it is: many wait for their turn, and rows are larger."""

    part: Part
    shard: MergedShard
    failures: bytes


def _copy_shard(
    storage: Storage, version: str, schema: pa.Schema, item: tuple[Input, str, str | None]
) -> _Copied:
    shard, target, group = item
    layout = shard.layout
    own = data_schema(dict(layout.columns), layout.dimensions, layout.vector_dtype, layout.task)
    if own.equals(schema, check_metadata=True):
        file = copy_file(storage, shard.embeddings, target)
    else:
        file = _cast_file(storage, shard.embeddings, target, schema)
    crash_point("part-copied")
    with open_parquet(storage, target) as written:
        rows = written.metadata.num_rows
        if rows != shard.embeddings.rows or not written.schema_arrow.equals(schema):
            raise AccountingError(
                f"{shard.embeddings.path}: holds {rows} rows of {written.schema_arrow.names}, but its marker "
                f"says {shard.embeddings.rows} rows of {schema.names}; embed its shard again"
            )
    failures, merged = _account(storage, shard)
    part = Part(
        uri=_uri(file, version),
        rows=rows,
        bytes=file.bytes,
        sha256=file.sha256,
        shard=shard.shard,
        planned=shard.planned,
        rejected=merged.rejected,
        failed=merged.failed,
        source_sha256=shard.embeddings.sha256,
        group=group,
    )
    return _Copied(part, merged, failures)


def _account(storage: Storage, shard: Input) -> tuple[bytes, MergedShard]:
    """A shard's failures file, and its accounting. Raises AccountingError where that does not add up."""
    failures = read_file(storage, shard.failures)
    stages = [count_stages_of(batch.column("stage"), shard.failures.path) for batch in _batches(failures)]
    rejected, failed = sum(one for one, _ in stages), sum(one for _, one in stages)
    rows = shard.embeddings.rows
    merged = MergedShard(shard.shard, shard.planned, rows, rejected, failed, shard.embeddings.sha256)
    merged.accounting.check(f"shard {shard.shard}")
    return failures, merged


def _batches(failures: bytes) -> Iterator[pa.RecordBatch]:
    return pq.ParquetFile(pa.BufferReader(failures)).iter_batches(GROUP_ROWS)


def _cast_file(storage: Storage, source: DataFile, target: str, schema: pa.Schema) -> DataFile:
    """Write `source` again in another schema, a row group at a time."""
    check_file(storage, source)
    writer = GroupedWriter(storage, target, schema)
    try:
        with open_parquet(storage, source.path) as file:
            for group in range(file.num_row_groups):
                writer.append(conform(file.read_row_group(group), schema))
        return writer.close()
    except BaseException:
        writer.abort()
        raise


def _uri(file: DataFile, version: str) -> str:
    return file.path.removeprefix(paths.merged_folder(version) + "/")
