"""The columns of the two data files of a shard, in their fixed order.

How the files are laid out is in `parquet_files.py`; where a column's type comes from (the
plan) in `sharding/`.
"""

from collections.abc import Iterable, Mapping

import pyarrow as pa

from batch_assets.errors import ConfigurationError

LEADING = ("record_id", "source_file", "source_row")
EMBEDDING = "embedding"
TOKEN_COUNT = "token_count"
RESERVED = (*LEADING, EMBEDDING, TOKEN_COUNT)

PLAN_TYPES: dict[str, pa.DataType] = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "json": pa.string(),
}
VECTOR_TYPES: dict[str, pa.DataType] = {"float32": pa.float32(), "float16": pa.float16()}

# A `json` column is text like a `string` column; this key in the field's metadata tells them apart.
_PLAN_TYPE_KEY = b"batch_assets:type"

FAILURES_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("source_file", pa.string(), nullable=False),
        pa.field("source_row", pa.int64(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("error_code", pa.string(), nullable=False),
        pa.field("error_message", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
    ]
)
REJECT = "reject"
INFERENCE = "inference"


def refuse_reserved(columns: Iterable[str]) -> None:
    """Raise ConfigurationError where a passed-through column has a name that the output needs."""
    if taken := [name for name in columns if name in RESERVED]:
        raise ConfigurationError(
            f"source.columns: {', '.join(map(repr, taken))} cannot be passed through: the output has "
            f"columns of its own named {', '.join(RESERVED)}; name in source.columns the others to be kept"
        )


def embeddings_schema(columns: Mapping[str, str], dimensions: int, vector_dtype: str) -> pa.Schema:
    """Schema of `embeddings-<fence>.parquet`; `columns` maps passed-through columns to plan types.

    Vectors and their elements are never null: that is what lets every reader take the column
    as one block of numbers. Raises ConfigurationError for a column with a reserved name.
    """
    refuse_reserved(columns)
    if dimensions < 1:
        raise ValueError(f"vectors of {dimensions} dimensions cannot be stored; the dimension must be known")
    element = pa.field("element", VECTOR_TYPES[vector_dtype], nullable=False)
    return pa.schema(
        [
            pa.field("record_id", pa.string(), nullable=False),
            pa.field("source_file", pa.string(), nullable=False),
            pa.field("source_row", pa.int64(), nullable=False),
            *(user_field(name, plan_type) for name, plan_type in columns.items()),
            pa.field(EMBEDDING, pa.list_(element, dimensions), nullable=False),
            pa.field(TOKEN_COUNT, pa.int32(), nullable=False),
        ]
    )


def user_field(name: str, plan_type: str) -> pa.Field:
    """A passed-through column, nullable, that remembers its plan type."""
    return pa.field(name, PLAN_TYPES[plan_type], metadata={_PLAN_TYPE_KEY: plan_type.encode()})


def plan_columns(schema: pa.Schema) -> dict[str, str]:
    """The inverse of `embeddings_schema`: passed-through columns and their plan types."""
    return {
        field.name: (field.metadata or {}).get(_PLAN_TYPE_KEY, b"string").decode()
        for field in schema
        if field.name not in RESERVED
    }
