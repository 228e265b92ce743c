"""The columns of the two data files of a shard, in their fixed order.

How the files are laid out is in `parquet_files.py`; where a column's type comes from (the
plan) in `sharding/`.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import pyarrow as pa

from batch_assets.errors import ConfigurationError
from batch_assets.sources.column_types import arrow_type

Task = Literal["embed", "generate"]
"""What a pipeline makes of each record: a vector, or an answer."""
EMBED: Task = "embed"
GENERATE: Task = "generate"

LEADING = ("record_id", "source_file", "source_row")
EMBEDDING = "embedding"
TOKEN_COUNT = "token_count"
RESPONSE = "response"
INPUT_TOKENS = "input_tokens"
OUTPUT_TOKENS = "output_tokens"
# Only what the task at hand needs is taken from users: who embeds may have a column `response`.
RESERVED: dict[Task, tuple[str, ...]] = {
    EMBED: (*LEADING, EMBEDDING, TOKEN_COUNT),
    GENERATE: (*LEADING, EMBEDDING, TOKEN_COUNT, RESPONSE, INPUT_TOKENS, OUTPUT_TOKENS),
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


def refuse_reserved(columns: Iterable[str], task: Task = EMBED) -> None:
    """Raise ConfigurationError where a passed-through column has a name that the task's output needs."""
    if taken := [name for name in columns if name in RESERVED[task]]:
        raise ConfigurationError(
            f"source.columns: {', '.join(map(repr, taken))} cannot be passed through: the output has columns "
            f"of its own named {', '.join(RESERVED[task])}; name in source.columns the others to be kept"
        )


def data_schema(columns: Mapping[str, str], dimensions: int, vector_dtype: str, task: Task) -> pa.Schema:
    """Schema of a task's `embeddings-<fence>.parquet`; dimension and vector type count only for `embed`."""
    if task == GENERATE:
        return responses_schema(columns)
    return embeddings_schema(columns, dimensions, vector_dtype)


def embeddings_schema(columns: Mapping[str, str], dimensions: int, vector_dtype: str) -> pa.Schema:
    """Schema where the task is `embed`; `columns` maps passed-through columns to plan types.

    Vectors and their elements are never null: that is what lets every reader take the column
    as one block of numbers. Raises ConfigurationError for a column with a reserved name.
    """
    refuse_reserved(columns)
    if dimensions < 1:
        raise ValueError(f"vectors of {dimensions} dimensions cannot be stored; the dimension must be known")
    element = pa.field("element", VECTOR_TYPES[vector_dtype], nullable=False)
    return pa.schema(
        [
            *_leading_fields(columns),
            pa.field(EMBEDDING, pa.list_(element, dimensions), nullable=False),
            pa.field(TOKEN_COUNT, pa.int32(), nullable=False),
        ]
    )


def responses_schema(columns: Mapping[str, str]) -> pa.Schema:
    """Schema where the task is `generate`: an answer is never null, though it may be empty.

    Raises ConfigurationError for a column with a reserved name.
    """
    refuse_reserved(columns, GENERATE)
    return pa.schema(
        [
            *_leading_fields(columns),
            pa.field(RESPONSE, pa.string(), nullable=False),
            pa.field(INPUT_TOKENS, pa.int32(), nullable=False),
            pa.field(OUTPUT_TOKENS, pa.int32(), nullable=False),
        ]
    )


def _leading_fields(columns: Mapping[str, str]) -> list[pa.Field]:
    return [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("source_file", pa.string(), nullable=False),
        pa.field("source_row", pa.int64(), nullable=False),
        *(user_field(name, plan_type) for name, plan_type in columns.items()),
    ]


def user_field(name: str, plan_type: str) -> pa.Field:
    """A passed-through column, nullable, that remembers its plan type."""
    return pa.field(name, arrow_type(plan_type), metadata={_PLAN_TYPE_KEY: plan_type.encode()})


def plan_columns(schema: pa.Schema) -> dict[str, str]:
    """The inverse of `data_schema`: passed-through columns and their plan types."""
    own = RESERVED[EMBED if EMBEDDING in schema.names else GENERATE]
    return {
        field.name: (field.metadata or {}).get(_PLAN_TYPE_KEY, b"string").decode()
        for field in schema
        if field.name not in own
    }
