"""One set of columns for shards of several generations, whose plans may have typed them differently.

What a merge does with the result is in `parquet.py`. The rules lose nothing: a column that an
older generation lacks is null there; integers become floats only where every one of them is
exact as a float; any other mix of types becomes JSON text, value by value.
"""

from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from batch_assets.embeddings.parquet_files import open_parquet
from batch_assets.embeddings.schema import Task, data_schema, plan_columns
from batch_assets.errors import AccountingError
from batch_assets.merge.inputs import Inputs
from batch_assets.storage import Storage

EXACT_IN_FLOAT = 2**53


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
    if types != {"int64", "float64"}:
        return "json"
    integers = [shard for shard in inputs.shards if (name, "int64") in shard.layout.columns]
    exact = all(_exact_as_float(storage, shard.embeddings.path, name) for shard in integers)
    return "float64" if exact else "json"


def _exact_as_float(storage: Storage, path: str, name: str) -> bool:
    """Whether all integers of a column are exact as float64, by the statistics in the footer."""
    with open_parquet(storage, path) as file:
        column = file.schema_arrow.names.index(name)
        for group in range(file.metadata.num_row_groups):
            statistics = file.metadata.row_group(group).column(column).statistics
            if statistics is None or not statistics.has_min_max:
                if statistics is None or statistics.null_count != file.metadata.row_group(group).num_rows:
                    return False
            elif max(abs(statistics.min), abs(statistics.max)) > EXACT_IN_FLOAT:
                return False
    return True


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table`, of a shard's own schema, in the unified one."""
    own, wanted = plan_columns(table.schema), plan_columns(schema)
    columns: list[Any] = []
    for field in schema:
        if field.name not in table.schema.names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table.column(field.name)
        if wanted.get(field.name) == "json" and own[field.name] != "json":
            column = _as_json(column)
        columns.append(column.cast(field.type))
    return pa.table(columns, schema=schema)


def _as_json(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Each value as JSON text; null stays null, and so becomes NaN, which JSON has no word for."""
    if pa.types.is_string(column.type) or pa.types.is_floating(column.type):
        values = column.to_pylist()
        texts = [None if value is None else orjson.dumps(value).decode() for value in values]
        return pa.chunked_array([pa.array(texts, type=pa.string())])
    return pc.cast(column, pa.string())
