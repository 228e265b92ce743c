"""The types of passed-through columns, found by looking at every record, and their stored names.

Five types: `int64`, `float64`, `bool`, `string`, and `json` for what is mixed, nested or too
large for the others, stored as JSON text. How values become arrays is in `arrays.py`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from types import MappingProxyType
from typing import Any

from batch_assets.errors import ConfigurationError

RESERVED = frozenset(
    {"record_id", "source_file", "source_row", "embedding", "token_count", "response",
     "input_tokens", "output_tokens"}
)  # fmt: skip
MOST_COLUMNS = 1_000
_SHOWN = 30  # names of columns in a message
_EXACT = 2**53  # float64 holds every integer up to here
_INT64 = (-(2**63), 2**63 - 1)


@dataclass(frozen=True)
class Column:
    """A passed-through column: its name in the output, its name in the source, its type."""

    stored: str
    source: str
    type: str


@dataclass
class Kinds:
    """What kinds of values a column has held so far; nulls are of every type and not counted."""

    bools: bool = False
    ints: bool = False
    floats: bool = False
    strings: bool = False
    others: bool = False
    lowest: int = 0
    highest: int = 0

    def add_ints(self, lowest: int, highest: int) -> None:
        self.ints = True
        self.lowest = min(self.lowest, lowest)
        self.highest = max(self.highest, highest)

    def type(self) -> str:
        """The narrowest type that holds every value; `string` where there was none."""
        numbers = self.ints or self.floats
        if self.others or (self.bools + self.strings + numbers) > 1:
            return "json"
        if self.floats:
            return "float64" if self.lowest >= -_EXACT and self.highest <= _EXACT else "json"
        if self.ints:
            return "int64" if _INT64[0] <= self.lowest and self.highest <= _INT64[1] else "json"
        return "bool" if self.bools else "string"

    def fits(self, fixed: str) -> bool:
        """Whether a column already fixed as `fixed` can hold every value seen."""
        empty = not (self.bools or self.ints or self.floats or self.strings or self.others)
        found = self.type()
        if found == "int64" and fixed == "float64":
            return self.lowest >= -_EXACT and self.highest <= _EXACT
        return empty or fixed in ("json", found)


class ColumnScan:
    """Sees every record of a planning round and settles the columns.

    `wanted` are the columns to pass through, None for all; `required` ones (text, id) must
    turn up somewhere, each is named by the setting it maps to; `earlier` are the columns that an
    earlier generation has fixed. Records that lack one of `text_columns`, or have something else
    than a string as their `text_column`, will be rejected: their values do not count. `implied`
    columns pass through only where `wanted` names them. `rename` makes the output's name of a column,
    another one for each.
    """

    def __init__(
        self,
        wanted: Sequence[str] | None,
        required: Mapping[str, str] = MappingProxyType({}),
        earlier: Sequence[Column] | None = None,
        text_columns: Sequence[str] = (),
        text_column: str | None = None,
        implied: frozenset[str] = frozenset(),
        rename: Callable[[str], str] = str,
    ) -> None:
        self._wanted = None if wanted is None else list(dict.fromkeys(wanted))
        self._required = required
        self._earlier = earlier
        self._text_columns = text_columns
        self._text_column = text_column
        self._implied = implied
        self._rename = rename
        self._asked_for = {*required, *(wanted or ())}
        self._kinds: dict[str, Kinds] = {}
        self._names: dict[str, None] = {}
        self._objects = 0
        self._of_file: set[str] = set()

    @property
    def finished(self) -> bool:
        """Whether no further record can change anything."""
        return self._wanted == [] and all(name in self._names for name in self._required)

    def take_names(self) -> frozenset[str]:
        """The names of the columns seen since this was asked last: of a file, about the first thousand."""
        names, self._of_file = frozenset(self._of_file), set()
        return names

    def add_objects(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Look at some JSON objects, a few thousand at a time."""
        # Objects with the same keys are turned into columns, which are looked at by C loops.
        alike: dict[tuple[str, ...], list[tuple[Any, ...]]] = defaultdict(list)
        for value in objects:
            alike[tuple(value)].append(tuple(value.values()))
        for names, rows in alike.items():
            self._objects += len(rows)
            self._note(names)
            if any(name not in names for name in self._text_columns):
                continue
            if self._text_column is not None:
                get = itemgetter(names.index(self._text_column))
                if set(map(type, map(get, rows))) != {str}:
                    rows = [row for row in rows if type(get(row)) is str]  # noqa: PLW2901
            for name, values in zip(names, zip(*rows, strict=True), strict=False):  # no rows: no values
                if (kinds := self._of(name)) is not None:
                    _look(kinds, values)

    def add_kinds(self, name: str, seen: Kinds) -> None:
        """Take the kinds of a whole column, where the file itself declares them."""
        self._objects += 1
        self._note([name])
        if (kinds := self._of(name)) is None:
            return
        if seen.ints:
            kinds.add_ints(seen.lowest, seen.highest)
        kinds.bools |= seen.bools
        kinds.floats |= seen.floats
        kinds.strings |= seen.strings
        kinds.others |= seen.others

    def leave_out(self, name: str) -> None:
        """Say that column `name` is the image itself. Raises ConfigurationError where `wanted` names it."""
        if self._wanted is not None and name in self._wanted:
            raise ConfigurationError(
                f"source.columns: {name!r} holds the images themselves, which do not pass through; leave it out"
            )

    def _note(self, names: Iterable[str]) -> None:
        names = list(names)
        if len(self._of_file) < MOST_COLUMNS:
            self._of_file.update(names)
        for name in names:
            if name not in self._names and (len(self._names) < MOST_COLUMNS or name in self._asked_for):
                self._names[name] = None

    def _of(self, name: str) -> Kinds | None:
        """Where to note the kinds of column `name`; None if nobody wants them."""
        if name in self._implied if self._wanted is None else name not in self._wanted:
            return None
        if name not in self._kinds:
            if len(self._kinds) >= MOST_COLUMNS:
                raise ConfigurationError(
                    f"source.columns: the records have more than {MOST_COLUMNS:,} different columns, among "
                    f"them {name!r}; name in source.columns the ones to pass through"
                )
            self._kinds[name] = Kinds()
        return self._kinds[name]

    def columns(self) -> tuple[Column, ...]:
        """The columns, in order of appearance, earlier generations' first.

        Raises ConfigurationError for a named column that no record has, and where values do
        not fit a type that an earlier generation has fixed.
        """
        if self._earlier is not None:
            return tuple(self._continued(self._earlier))
        known = ", ".join(map(repr, islice(self._names, _SHOWN))) + (
            ", …" if len(self._names) > _SHOWN else ""
        )
        if self._objects:
            for name, field in self._required.items():
                if name not in self._names:
                    raise ConfigurationError(
                        f"{field}: {name!r} is in no record; the columns found are {known}; name one of them"
                    )
            if missing := [name for name in self._wanted or () if name not in self._names]:
                raise ConfigurationError(
                    f"source.columns: {', '.join(map(repr, missing))} in no record; "
                    f"the columns found are {known}"
                )
        names = (
            [name for name in self._names if name in self._kinds] if self._wanted is None else self._wanted
        )
        stored = stored_names(names, rename=self._rename)
        kinds = {name: self._kinds.get(name, Kinds()) for name in names}
        return tuple(Column(stored[name], name, kinds[name].type()) for name in names)

    def _continued(self, earlier: Sequence[Column]) -> Iterator[Column]:
        for column in earlier:
            kinds = self._kinds.get(column.source, Kinds())
            if not kinds.fits(column.type):
                raise ConfigurationError(
                    f"source.columns: {column.source!r} is {column.type} in the shards planned so far, but "
                    f"new files hold {kinds.type()} values; start a new output root, or pass through columns "
                    "without it there"
                )
            yield column
        taken = [column.source for column in earlier]
        names = [name for name in self._kinds if name not in taken]
        stored = stored_names(names, [column.stored for column in earlier], self._rename)
        for name in names:
            yield Column(stored[name], name, self._kinds[name].type())


def stored_names(
    names: Sequence[str], taken: Iterable[str] = (), rename: Callable[[str], str] = str
) -> dict[str, str]:
    """The output's name of each source column: what `rename` says, or `user_<name>` where the output needs that.

    Output names are unique, whatever letters are large: some readers do not tell those apart.
    """
    taken = set(taken)
    renamed = {name: rename(name) for name in names}
    result = {
        name: stored
        for name, stored in renamed.items()
        if stored.lower() not in RESERVED and stored not in taken
    }
    used = {*result.values(), *taken}
    for name, stored in renamed.items():
        if name not in result:
            candidate, number = f"user_{stored}", 2
            while candidate in used:
                candidate, number = f"user_{stored}_{number}", number + 1
            used.add(candidate)
            result[name] = candidate
    return result


def _look(kinds: Kinds, values: Sequence[Any]) -> None:
    types = set(map(type, values))
    types.discard(type(None))
    if int in types:
        integers = values if len(types) == 1 and None not in values else [v for v in values if type(v) is int]
        kinds.add_ints(min(integers), max(integers))
    kinds.floats |= float in types
    kinds.strings |= str in types
    kinds.bools |= bool in types
    kinds.others |= dict in types or list in types
