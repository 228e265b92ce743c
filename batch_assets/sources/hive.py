"""Partition columns that stand in the names of folders, as Hive, Spark, DuckDB and Arrow write them: dt=2024-01-01/.

Typed as these readers do it: integers where all values are, dates where all are in ISO 8601, else
text. A table's partition columns are told by its own metadata instead (`tables/`).
"""

import datetime
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa

INTEGER, DATE, TEXT = "int64", "date32", "string"
TYPES: dict[str, pa.DataType] = {INTEGER: pa.int64(), DATE: pa.date32(), TEXT: pa.string()}
_NULL = "__HIVE_DEFAULT_PARTITION__"
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True)
class HivePartitions:
    """The partition columns of a source, in their order, each with its type: a key of `TYPES`."""

    types: Mapping[str, str]

    def values(self, path: str) -> Mapping[str, pa.Scalar]:
        """A file's values, by the folders it lies in; null where none of them names the column."""
        named = _named(path)
        return {name: _scalar(named.get(name), kind) for name, kind in self.types.items()}


def find_partitions(paths: Iterable[str], earlier: Mapping[str, str]) -> tuple[HivePartitions, str | None]:
    """The partition columns of these files, and a sentence on names of folders that are none.

    They are those that an `earlier` generation has; where there are none, the names that every file has, in the
    same order. The types are at least as wide as the earlier ones.
    """
    names: tuple[str, ...] | None = tuple(earlier) or None
    kinds = {name: {kind} for name, kind in earlier.items()}
    odd: str | None = None
    more: str | None = None
    some = False
    for path in paths:
        named = _named(path)
        some = some or bool(named)
        if names is None:
            names = tuple(named)
        if not earlier and tuple(named) != names:
            odd = odd or path
        if earlier and set(names) - named.keys():
            odd = odd or path
        if earlier and named.keys() - set(names):
            more = more or path
        for name, value in named.items():
            if value is not None:
                kinds.setdefault(name, set()).add(_kind(value))
    if odd is not None and not earlier:
        told = f"the names of folders such as key=value are no columns: not all files lie in the same keys, see {odd}"
        return HivePartitions({}), told if some else None
    sentences: list[str] = []
    if odd:
        sentences.append(
            f"files that do not lie in folders of {', '.join(earlier)}, such as {odd}: null there"
        )
    if more:
        sentences.append(f"keys of folders that are no columns of the plans before, such as those of {more}")
    told = "; ".join(sentences) or None
    return HivePartitions({name: _widest(kinds.get(name, set())) for name in names or ()}), told


def _named(path: str) -> dict[str, str | None]:
    """The keys and values in the names of a path's folders, in their order; None is null. Other folders say nothing."""
    named: dict[str, str | None] = {}
    for folder in path.split("/")[:-1]:
        key, equals, value = folder.partition("=")
        if key and equals:
            named[unquote(key)] = None if value == _NULL else unquote(value)
    return named


def _kind(value: str) -> str:
    if _INTEGER.fullmatch(value):
        return INTEGER
    if _DATE.fullmatch(value):
        try:
            datetime.date.fromisoformat(value)
        except ValueError:
            return TEXT
        return DATE
    return TEXT


def _widest(kinds: set[str]) -> str:
    return kinds.pop() if len(kinds) == 1 else TEXT


def _scalar(value: str | None, kind: str) -> pa.Scalar:
    if value is None:
        return pa.scalar(None, TYPES[kind])
    if kind == INTEGER:
        return pa.scalar(int(value), TYPES[kind])
    return pa.scalar(datetime.date.fromisoformat(value) if kind == DATE else value, TYPES[kind])
