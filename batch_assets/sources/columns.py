"""The types of passed-through columns, found by looking at every record, and their stored names.

What the types are is in `column_types.py`, which of them holds which in `widening.py`, how values become
arrays in `arrays.py`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from types import MappingProxyType
from typing import Any

from batch_assets.errors import ConfigurationError
from batch_assets.sources.column_kinds import Column, Kinds
from batch_assets.sources.stored_names import stored_names

MOST_COLUMNS = 1_000
MOST_TOLERATED = 200
_SHOWN = 30  # names of columns in a message


class ColumnScan:
    """Sees every record of a planning round and settles the columns.

    `wanted` are the columns to pass through, None for all; `required` ones (text, id) must
    turn up somewhere, each is named by the setting it maps to; `earlier` are the columns that an
    earlier generation has fixed. Records that lack one of `text_columns`, or have something else
    than a string as their `text_column`, will be rejected: their values do not count. `implied`
    columns pass through only where `wanted` names them. `rename` makes the output's name of a column,
    another one for each. `id_column` is the one whose values are to be counted. A `tolerant` scan is of records that
    nobody looked over before: none of them can have the rest refused, so a column may be missing, and columns
    beyond `MOST_TOLERATED` do not pass through.
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
        id_column: str | None = None,
        *,
        tolerant: bool = False,
    ) -> None:
        self.id_column = id_column
        self._tolerant = tolerant
        self.unnamed_files: set[str] = set()
        """Columns of whole files that would pass through if they were named."""
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
        self._declared: set[str] = set()
        self._repeating: dict[str, bool] = {}
        self._objects = 0
        self._of_file: set[str] = set()

    @property
    def finished(self) -> bool:
        """Whether no further record can change anything."""
        return self._wanted == [] and all(name in self._names for name in self._required)

    def names(self, name: str) -> bool:
        """Whether column `name` is one of those that were asked for by name."""
        return self._wanted is not None and name in self._wanted

    def repeats(self, name: str, repeats: bool) -> None:
        """Say whether some values of column `name`, just shown, are those of another column.

        A column whose values all are passes through only where it is asked for by name.
        """
        self._repeating[name] = self._repeating.get(name, True) and repeats

    def _is_new(self, name: str) -> bool:
        return name in self._kinds and not self._repeating.get(name, False)

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
                    kinds.look(values)

    def add_kinds(self, name: str, seen: Kinds) -> None:
        """Take the kinds of a whole column, where the file itself declares them."""
        self._objects += 1
        self._note([name])
        if (kinds := self._of(name)) is None:
            return
        for found in seen.types:
            kinds.add(found, seen.lowest, seen.highest)
        self._declared.add(name)

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
            if self._tolerant and self._wanted is None and self._is_beyond(name):
                return None
            if len(self._kinds) >= MOST_COLUMNS:
                raise ConfigurationError(
                    f"source.columns: the records have more than {MOST_COLUMNS:,} different columns, among "
                    f"them {name!r}; name in source.columns the ones to pass through"
                )
            self._kinds[name] = Kinds()
        return self._kinds[name]

    def _is_beyond(self, name: str) -> bool:
        earlier = [column.source for column in self._earlier or ()]
        return name not in earlier and len({*earlier, *self._kinds}) >= MOST_TOLERATED

    def columns(self) -> tuple[Column, ...]:
        """The columns, in order of appearance, earlier generations' first; one that is asked for no more is left out.

        Raises ConfigurationError for a named column that no record has.
        """
        if self._earlier is not None:
            return tuple(self._continued(self._earlier))
        known = ", ".join(map(repr, islice(self._names, _SHOWN))) + (
            ", …" if len(self._names) > _SHOWN else ""
        )
        if self._objects and not self._tolerant:
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
        names = list(filter(self._is_new, self._names)) if self._wanted is None else self._wanted
        stored = stored_names(names, rename=self._rename)
        kinds = {name: self._kinds.get(name, Kinds()) for name in names}
        return tuple(Column(stored[name], name, kinds[name].type()) for name in names)

    def _continued(self, earlier: Sequence[Column]) -> Iterator[Column]:
        """The columns of a later generation. Each has the type of before where that holds its values, else its own."""
        for column in earlier:
            if self._wanted is None or column.source in self._wanted:
                kinds = self._kinds.get(column.source, Kinds())
                yield Column(column.stored, column.source, kinds.type_beside(column.type))
        taken = [column.source for column in earlier]
        names = [name for name in self._kinds if name not in taken]
        names = [name for name in names if self.names(name) or self._is_new(name)]
        stored = stored_names(names, [column.stored for column in earlier], self._rename)
        for name in names:
            yield Column(stored[name], name, self._kinds[name].type())

    def merged(self) -> dict[str, str]:
        """The types that a merge gives the columns, by their stored names, beside the generation before.

        What was text before may have been nothing but nulls, which have no say.
        """
        before = {one.source: one.type for one in self._earlier or () if one.type != "string"}
        return {
            column.stored: self._kinds[column.source].type_merged_with(before[column.source])
            if column.source in before and column.source in self._kinds
            else column.type
            for column in self.columns()
        }

    def notes(self) -> list[str]:
        """A sentence for each column whose files differ, or that is not as it was planned before."""
        before = {column.source: column.type for column in self._earlier or ()}
        found: list[str] = []
        for name, kinds in self._kinds.items():
            planned = kinds.type_beside(before[name]) if name in before else kinds.type()
            if name in before and planned != before[name]:
                found.append(
                    f"column {name!r} is {before[name]} in the shards planned so far and {planned} in the new ones; "
                    f"the merge makes {_in_words(kinds.type_merged_with(before[name]))} of both"
                )
            elif len(kinds.types) > 1 and (name in self._declared or planned == "json"):
                found.append(
                    f"column {name!r} is {kinds.listed} in the source; it is stored as {_in_words(planned)}"
                )
        return found


def _in_words(plan_type: str) -> str:
    return "JSON text" if plan_type == "json" else "text" if plan_type == "string" else plan_type
