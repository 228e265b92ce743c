"""Partition columns: values that all records of a file share, and that stand beside the file, not in it.

A table's metadata tell them (`tables/`), or the names of folders, as Hive writes them. A column of
the file itself of the same name comes first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute

from batch_assets.sources.column_kinds import Kinds
from batch_assets.sources.column_types import declared_type
from batch_assets.sources.columns import ColumnScan
from batch_assets.sources.value_texts import values_of

_compute: Any = pyarrow.compute  # its functions are made when it is imported

Partitions = Callable[[str], Mapping[str, pa.Scalar]]
"""The values of a file's partition columns, by the file's path."""

_NONE: Mapping[str, pa.Scalar] = MappingProxyType({})


def no_values(path: str) -> Mapping[str, pa.Scalar]:
    """Of a source without partition columns."""
    return _NONE


def repeated(value: pa.Scalar, count: int) -> pa.Array:
    """A partition column of so many rows."""
    return pa.repeat(value, count)


def where(wanted: pa.Array, values: pa.Array) -> pa.Array:
    """The `values` that are `wanted`, and null in place of the others."""
    return _compute.if_else(wanted, values, pa.scalar(None, values.type))


@dataclass
class FileValues:
    """The partition columns of one file whose records are JSON objects.

    `plain` are the values as such an object would hold them: what JSON lacks, as text.
    """

    values: Mapping[str, pa.Scalar]
    plain: dict[str, Any] = field(init=False)
    _declared: set[str] = field(default_factory=set[str], init=False)

    def __post_init__(self) -> None:
        self.plain = {name: _plain(value) for name, value in self.values.items()}

    def merged(self, item: dict[str, Any]) -> dict[str, Any]:
        """The object with the values that it lacks."""
        return {**self.plain, **item} if self.plain else item

    def show(self, objects: Sequence[dict[str, Any]], columns: ColumnScan) -> None:
        """Show JSON objects to `columns`, and the columns that some of them take from here with their types."""
        if not self.plain:
            columns.add_objects(objects)
            return
        for name, value in self.values.items():
            if name not in self._declared and any(name not in item for item in objects):
                self._declared.add(name)
                declare(columns, name, value)
        # They are there, but their types are declared already; only a text must be seen to be one.
        there = {name: value if isinstance(value, str) else None for name, value in self.plain.items()}
        there |= {name: None for name, value in self.values.items() if not pa.types.is_string(value.type)}
        # Behind the file's own, as in Parquet.
        columns.add_objects([item | {k: v for k, v in there.items() if k not in item} for item in objects])


def declare(columns: ColumnScan, name: str, value: pa.Scalar) -> None:
    """Show a partition column to `columns`, as if a Parquet file had it with this one value."""
    kinds = Kinds()
    if (found := declared_type(value.type)) is not None:
        number = value.as_py() if pa.types.is_integer(value.type) and value.is_valid else 0
        kinds.add(found, number, number)
    columns.add_kinds(name, kinds)


def _plain(value: pa.Scalar) -> Any:
    return values_of(repeated(value, 1))[0]
