"""Rows of many shards into one dataset for each value of a column: streamed, in source order, in bounded memory.

A file is open for each group while the shards go by, and open files take memory, on an object
store that of an upload: so only some groups are written at a time, and the shards that have rows of
the next ones are read again. A group's rows come into few files: a next one is begun only at
`PART_BYTES`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batch_assets import paths
from batch_assets.embeddings.parquet_files import GROUP_BYTES, GroupedWriter, open_parquet
from batch_assets.errors import AccountingError
from batch_assets.merge.base import Group, Part
from batch_assets.merge.groups import (
    ColumnGroups,
    Value,
    group_folders,
    grouped_column,
    merged_values,
    name_of,
    values_type,
)
from batch_assets.merge.inputs import Input
from batch_assets.merge.unify import conform
from batch_assets.storage import Storage, is_local
from batch_assets.storage.threads import map_in_order

GROUPS_AT_ONCE, GROUPS_AT_ONCE_OF_OBJECTS = 256, 64
PART_BYTES = 2**30
PENDING_BYTES = 512 * 2**20
"""Rows that wait to be written, of all open files together."""
GATHERED_BYTES = 128 * 2**20
"""Rows that are taken apart together: by single row groups there would be a thousand crumbs of each."""
READERS, READERS_OF_OBJECTS = 2, 4

Places = npt.NDArray[np.int32]


def split_by_column(
    storage: Storage,
    version: str,
    schema: pa.Schema,
    shards: Sequence[Input],
    groups: ColumnGroups,
    advance: Callable[[float], None],
) -> tuple[list[Group], list[Part]]:
    """Write every row of `shards` into its group's files; the groups in order of first appearance.

    `advance` is told which share is done. Raises AccountingError where a group does not come out
    with the rows that were counted.
    """
    values = list(groups.rows)
    folders = group_folders(map(name_of, values))
    made = [
        Group(name_of(value), paths.merged_group(folders[name_of(value)]), groups.rows[value])
        for value in values
    ]
    parts: list[Part] = []
    at_once = GROUPS_AT_ONCE if is_local(storage.uri) else GROUPS_AT_ONCE_OF_OBJECTS
    for first in range(0, len(values), at_once):
        these = range(first, min(first + at_once, len(values)))
        wanted = sum(1 << number for number in these)
        read = [shard for shard, members in zip(shards, groups.members, strict=True) if members & wanted]
        outputs = [_GroupFiles(storage, version, schema, made[number], len(these)) for number in these]
        try:
            _pass(storage, schema, read, groups.column, [values[number] for number in these], outputs)
            for output in outputs:
                parts += output.close()
        except BaseException:
            for output in outputs:
                with suppress(Exception):  # the first error is the one to be told
                    output.abort()
            raise
        advance(these.stop / len(values))
    return made, parts


class _GroupFiles:
    """The files of one group, one open at a time."""

    def __init__(self, storage: Storage, version: str, schema: pa.Schema, group: Group, at_once: int) -> None:
        self._storage, self._version, self._schema, self._group = storage, version, schema, group
        self._group_bytes = min(GROUP_BYTES, PENDING_BYTES // at_once)
        self._writer: GroupedWriter | None = None
        self._parts: list[Part] = []

    def append(self, rows: pa.Table) -> None:
        if self._writer is None:
            path = paths.merged_part(self._version, len(self._parts), self._group.folder)
            self._writer = GroupedWriter(self._storage, path, self._schema, group_bytes=self._group_bytes)
        self._writer.append(rows)
        if self._writer.bytes >= PART_BYTES:
            self._finish()

    def _finish(self) -> None:
        if self._writer is not None:
            file = self._writer.close()
            self._writer = None
            uri = file.path.removeprefix(paths.merged_folder(self._version) + "/")
            self._parts.append(Part(uri, file.rows, file.bytes, file.sha256, group=self._group.name))

    def close(self) -> list[Part]:
        """Finish the last file. Raises AccountingError where rows are missing or too many."""
        self._finish()
        rows = sum(part.rows for part in self._parts)
        if rows != self._group.rows:
            raise AccountingError(
                f"group {self._group.name!r}: {rows} rows were written, {self._group.rows} were counted; merge again"
            )
        return self._parts

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()


def _pass(
    storage: Storage,
    schema: pa.Schema,
    shards: Sequence[Input],
    column: str,
    values: Sequence[Value],
    outputs: Sequence[_GroupFiles],
) -> None:
    """Go once through `shards` and give each row of `values` to its output."""
    known = pa.array(values, type=values_type(column, schema))
    find = partial(_find_rows, storage, schema, column, known)
    threads = READERS if is_local(storage.uri) else READERS_OF_OBJECTS
    gathered: list[tuple[Places, pa.Table]] = []
    size = 0
    for places, rows in map_in_order(find, _row_groups(storage, shards), threads):
        gathered.append((places, rows))
        size += rows.nbytes
        if size >= GATHERED_BYTES:
            _give_out(gathered, outputs)
            size = 0
    _give_out(gathered, outputs)


def _give_out(gathered: list[tuple[Places, pa.Table]], outputs: Sequence[_GroupFiles]) -> None:
    """Append the rows to their outputs, in order, and forget them."""
    if gathered:
        places = np.concatenate([one for one, _ in gathered])
        rows = pa.concat_tables([one for _, one in gathered]).combine_chunks()
        gathered.clear()
        # Copies: a slice would keep all of them in memory until its few rows are written.
        for place in np.unique(places):
            outputs[place].append(rows.take(pa.array(np.flatnonzero(places == place))))


def _row_groups(storage: Storage, shards: Sequence[Input]) -> Iterator[tuple[str, Any, int]]:
    """(path, footer, number) of each row group."""
    for shard in shards:
        with open_parquet(storage, shard.embeddings.path) as file:
            footer = file.metadata
        for number in range(footer.num_row_groups):
            yield shard.embeddings.path, footer, number


def _find_rows(
    storage: Storage, schema: pa.Schema, column: str, known: pa.Array, item: tuple[str, Any, int]
) -> tuple[Places, pa.Table]:
    """The rows of a row group whose value is in `known`, and its place there (n,)."""
    path, footer, number = item
    with open_parquet(storage, path, footer) as file:
        found: Any = pa.nulls(footer.row_group(number).num_rows, known.type)
        name = grouped_column(column)
        if name in file.schema_arrow.names:
            read = file.read_row_group(number, columns=[name], use_threads=False)
            found = merged_values(column, read.column(name), schema)
        # Null is a value like the others: the place of the one in `known`, where there is one.
        places = pc.index_in(found, value_set=known)  # pyright: ignore[reportAttributeAccessIssue]
        if places.null_count == len(places):
            return np.empty(0, dtype=np.int32), schema.empty_table()
        rows = conform(file.read_row_group(number, use_threads=False), schema)
    if places.null_count:
        rows, places = rows.filter(places.is_valid()), places.drop_null()
    return places.to_numpy(), rows
