"""Which groups a merge makes, counted before anything is written, and in which folder each one lies.

A group is a folder of the source or a value of an output column. Shards that were planned for it
are of one folder each, and become parts as they are; of other groups any shard may have rows. How
rows come into their groups is in `splitting.py`.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batch_assets.embeddings.parquet_files import open_parquet
from batch_assets.embeddings.schema import EMBEDDING, Task, data_schema
from batch_assets.errors import AccountingError, ConfigurationError
from batch_assets.merge.copying import check_committed
from batch_assets.merge.inputs import Input
from batch_assets.settings.pipeline import FOLDER
from batch_assets.sources.value_texts import text_array
from batch_assets.storage import Storage
from batch_assets.storage.threads import map_in_order, threads_for

MOST_GROUPS = 1_000
VALUES_AT_ONCE = 65_536
MOST_CHARACTERS = 100
"""Of a folder's name; with its ending it stays under the 255 bytes that file systems take."""

Value = str | int | bool | None


@dataclass
class ColumnGroups:
    """The groups by a column: rows of each value, in order of first appearance, and who is in which shard.

    `members` has for each shard a number whose n-th bit says whether it has rows of the n-th value.
    """

    column: str
    rows: dict[Value, int] = field(default_factory=dict)
    members: list[int] = field(default_factory=list)


def group_folders(names: Iterable[str | None]) -> dict[str | None, str]:
    """A folder for each group's name: safe everywhere, the same each time, and no two alike.

    Letters, digits and `-` stay, every other byte becomes `_` and two digits; names that would
    differ in upper and lower case alone, and long ones, end in a digest.
    """
    plain = {name: _plain(name) for name in names}
    taken: dict[str, int] = {}
    for folder in plain.values():
        taken[folder.casefold()] = taken.get(folder.casefold(), 0) + 1
    return {
        name: _with_digest(name, folder) if taken[folder.casefold()] > 1 else folder
        for name, folder in plain.items()
    }


def _plain(name: str | None) -> str:
    # `_` is always followed by two upper-case hexadecimal digits, or by what can be none. It never
    # comes first: readers of datasets pass over what begins with it.
    if not name:
        return "null_" if name is None else "empty_"
    folder = "".join(
        chr(byte) if chr(byte).isascii() and (chr(byte).isalnum() or byte == ord("-")) else f"_{byte:02X}"
        for byte in name.encode()
    )
    folder = f"x_{folder}" if folder.startswith("_") else folder
    return folder if len(folder) <= MOST_CHARACTERS else _with_digest(name, folder)


def _with_digest(name: str | None, folder: str) -> str:
    digest = hashlib.sha256(repr(name).encode()).hexdigest()[:12]
    return f"{folder.split('_h', 1)[0][:MOST_CHARACTERS]}_h{digest}"


def count_folders(shards: Sequence[Input], folder_of: Mapping[str, str]) -> list[str]:
    """The source folders of the shards, in order. Raises ConfigurationError where they are too many."""
    found = list(dict.fromkeys(folder_of[one.shard] for one in shards))
    _refuse_many(len(found), "the source has", "folders", len(shards), len(shards))
    return found


def check_merge_by(by: str | None, columns: Mapping[str, str], task: Task) -> None:
    """Raise ConfigurationError where rows with these passed-through columns (by plan type) cannot be grouped so."""
    if by not in (None, FOLDER):
        check_column(by, data_schema(columns, 1, "float32", task))


def check_column(column: str, schema: pa.Schema) -> None:
    """Raise ConfigurationError where the merged rows have no such column, or its values make no groups."""
    if column not in schema.names:
        known = ", ".join(name for name in schema.names if name != EMBEDDING)
        raise ConfigurationError(
            f"merge_by: there is no output column {column!r} (there are {known}); name one of them, or folder"
        )
    kind = schema.field(column).type
    mixed = (schema.field(column).metadata or {}).get(b"batch_assets:type") == b"json"
    plain = pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    if mixed or not (plain or _grouped_by_text(kind)):
        raise ConfigurationError(
            f"merge_by: column {column!r} holds {'values of mixed or nested types' if mixed else kind}; groups are "
            "made by text, dates and times, decimals, integers or booleans"
        )


def _grouped_by_text(kind: pa.DataType) -> bool:
    return pa.types.is_temporal(kind) or pa.types.is_decimal(kind)


def values_type(by: str, schema: pa.Schema) -> pa.DataType:
    """The type of what `group_values` gives of merged rows."""
    kind = schema.field(grouped_column(by)).type
    return pa.string() if _grouped_by_text(kind) else kind


def grouped_column(by: str) -> str:
    """The output column that says of which group a row is."""
    return "source_file" if by == FOLDER else by


def group_values(by: str, found: "pa.ChunkedArray | pa.Array") -> Any:
    """The values that make groups, of a `grouped_column`: by folder, what stands before a path's last slash.

    Dates, times and decimals make them by their text.
    """
    if by != FOLDER and _grouped_by_text(found.type):
        chunks = found.chunks if isinstance(found, pa.ChunkedArray) else [found]
        return pa.chunked_array([text_array(chunk) for chunk in chunks], pa.string())
    if by != FOLDER:
        return found
    from_last_slash = pc.ReplaceSubstringOptions("/?[^/]*$", "", max_replacements=1)
    return pc.call_function("replace_substring_regex", [found], from_last_slash)


def merged_values(by: str, found: Any, schema: pa.Schema) -> Any:
    """What `group_values` gives of a shard's own column, once its values are what they are in the merged `schema`.

    One time in milliseconds and in microseconds, or 1.5 and 1.50, are one value, but two texts.
    """
    kind = schema.field(grouped_column(by)).type
    values = group_values(by, found.cast(kind) if _grouped_by_text(kind) else found)
    return values.cast(values_type(by, schema)) if by != FOLDER else values


def count_values(storage: Storage, shards: Sequence[Input], column: str, schema: pa.Schema) -> ColumnGroups:
    """Count a column's values in all shards, whose files are checked on the way; `schema` is the merged rows'.

    Raises ConfigurationError where they are too many, AccountingError for a file that is not the
    committed one.
    """
    groups = ColumnGroups(column)
    numbers: dict[Value, int] = {}
    counted = map_in_order(partial(_count, storage, column, schema), shards, threads_for(storage))
    for done, counts in enumerate(counted, 1):
        members = 0
        for value, rows in counts.items():
            members |= 1 << numbers.setdefault(value, len(numbers))
            groups.rows[value] = groups.rows.get(value, 0) + rows
        groups.members.append(members)
        whose = ("the source has", "folders") if column == FOLDER else (f"column {column!r} has", "values")
        _refuse_many(len(numbers), *whose, done, len(shards))
    return groups


def _count(storage: Storage, column: str, schema: pa.Schema, shard: Input) -> dict[Value, int]:
    check_committed(storage, shard.embeddings)
    counts: dict[Value, int] = {}
    with open_parquet(storage, shard.embeddings.path) as file:
        name = grouped_column(column)
        if name not in file.schema_arrow.names:
            # A generation from before the column came into the source.
            rows = file.metadata.num_rows
            counts = {None: rows} if rows else {}
        else:
            for batch in file.iter_batches(VALUES_AT_ONCE, columns=[name], use_threads=False):
                values = merged_values(column, batch.column(name), schema)
                for entry in values.value_counts().to_pylist():
                    counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
    if sum(counts.values()) != shard.embeddings.rows:
        raise AccountingError(
            f"{shard.embeddings.path}: holds {sum(counts.values())} rows, its marker says {shard.embeddings.rows}; "
            "embed its shard again"
        )
    return counts


def _refuse_many(found: int, whose: str, what: str, shards: int, of: int) -> None:
    if found > MOST_GROUPS:
        where = "" if shards == of else f" in the first {shards:,} of {of:,} shards alone"
        raise ConfigurationError(
            f"merge_by: {whose} {found:,} {what}{where}, and a merge makes at most {MOST_GROUPS:,} groups; name a "
            "column with fewer values, or leave merge_by out"
        )


def name_of(value: Value) -> str | None:
    """A value as the name of its group."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)
