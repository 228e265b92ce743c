"""One set of columns for shards of several generations, whose plans may have typed them differently.

What a merge does with the result is in `parquet.py`, which type holds which in `sources/widening.py`.
The rules lose nothing: a column that an older generation lacks is null there; integers become floats only
where every one of them is exact as a float; what no other type holds becomes JSON text, value by value.
"""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.embeddings.parquet_files import open_parquet
from batch_assets.embeddings.schema import Task, data_schema, plan_columns
from batch_assets.errors import AccountingError
from batch_assets.merge.inputs import Inputs
from batch_assets.sources.arrays import arrow_array
from batch_assets.sources.column_types import arrow_type
from batch_assets.sources.value_texts import json_array
from batch_assets.sources.widening import is_integer, widest
from batch_assets.storage import Storage
from batch_assets.storage.threads import map_in_order, threads_for

Found = TypeVar("Found")


def unified_schema(storage: Storage, inputs: Inputs) -> tuple[pa.Schema, str]:
    """Schema that every shard's rows can be put into, and its vector type; columns as they first appear.

    float16 and float32 vectors together are float32. Raises AccountingError for vectors of
    different dimensions, and for vectors beside answers.
    """
    tasks: set[Task] = {layout.task for layout in inputs.layouts}
    if len(tasks) != 1:
        first = {shard.layout.task: shard.shard for shard in reversed(inputs.shards)}
        found = ", ".join(f"{task} in shard {shard}" for task, shard in sorted(first.items()))
        raise AccountingError(f"shards to be merged are of different tasks: {found}")
    dimensions = {layout.dimensions for layout in inputs.layouts}
    if len(dimensions) != 1:
        first = {shard.layout.dimensions: shard.shard for shard in reversed(inputs.shards)}
        found = ", ".join(f"{dimension} in shard {shard}" for dimension, shard in sorted(first.items()))
        raise AccountingError(f"shards to be merged have vectors of different dimensions: {found}")
    types: dict[str, set[str]] = {}
    for layout in inputs.layouts:
        for name, plan_type in layout.columns:
            types.setdefault(name, set()).add(plan_type)
    columns = {name: _unified_type(storage, inputs, name, found) for name, found in types.items()}
    vector_dtype = max(layout.vector_dtype for layout in inputs.layouts)  # "float16" < "float32"
    return data_schema(columns, dimensions.pop(), vector_dtype, tasks.pop()), vector_dtype


def _unified_type(storage: Storage, inputs: Inputs, name: str, types: set[str]) -> str:
    if len(types) == 1:
        return next(iter(types))
    # A column without a value has no say: it is text because nothing was known of it.
    if "string" in types and all(_of_shards(storage, inputs, name, "string", _is_empty)):
        types = types - {"string"}
    bounds = [0]
    for plan_type in types if len(types) > 1 else ():
        if is_integer(plan_type):
            bounds += chain.from_iterable(_of_shards(storage, inputs, name, plan_type, _range))
    return widest(types, min(bounds), max(bounds))


def _of_shards(
    storage: Storage,
    inputs: Inputs,
    name: str,
    plan_type: str,
    look: Callable[[Storage, str, str, str], Found],
) -> Iterator[Found]:
    """What `look` says of a column of each shard in which it has this type; many footers are asked for at a time."""
    paths = [s.embeddings.path for s in inputs.shards if (name, plan_type) in s.layout.columns]
    return map_in_order(lambda path: look(storage, path, name, plan_type), paths, threads_for(storage))


def _range(storage: Storage, path: str, name: str, plan_type: str) -> list[int]:
    """Bounds of a column of integers, by the statistics in the footer; those of the type where it has none."""
    bounds: list[int] = []
    with open_parquet(storage, path) as file:
        leaf = _leaf(file.metadata, name)
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            statistics = group.column(leaf).statistics
            if statistics is not None and statistics.has_min_max:
                bounds += [statistics.min, statistics.max]
            elif statistics is None or statistics.null_count != group.num_rows:
                limits = np.iinfo(plan_type)
                bounds += [int(limits.min), int(limits.max)]
    return bounds


def _is_empty(storage: Storage, path: str, name: str, plan_type: str) -> bool:
    """Whether a column has no value, by the statistics in the footer."""
    with open_parquet(storage, path) as file:
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        leaf = _leaf(file.metadata, name)
        found = [(group.column(leaf).statistics, group.num_rows) for group in groups]
    return all(statistics is not None and statistics.null_count == rows for statistics, rows in found)


def _leaf(footer: pq.FileMetaData, name: str) -> int:
    """The number of a flat column's leaf."""
    return next(place for place in range(footer.num_columns) if footer.schema.column(place).path == name)


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table`, of a shard's own schema, in the unified one."""
    own, wanted = plan_columns(table.schema), plan_columns(schema)
    columns: list[Any] = []
    for field in schema:
        if field.name not in table.schema.names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table.column(field.name)
        if (plan_type := wanted.get(field.name)) is not None and own[field.name] != plan_type:
            chunks = [_converted(chunk, own[field.name], plan_type) for chunk in column.chunks]
            column = pa.chunked_array(chunks, field.type)
        columns.append(column.cast(field.type))
    return pa.table(columns, schema=schema)


def _converted(array: pa.Array, own: str, plan_type: str) -> pa.Array:
    if array.null_count == len(array):
        return pa.nulls(len(array), arrow_type(plan_type))
    if plan_type != "json":
        return arrow_array(array, plan_type)
    return array if own == "json" else json_array(array)
