"""What a column holds: the types of its values so far, and the column as a plan fixes it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from batch_assets.sources.widening import holds, widest

_JSON_TYPES = {int: "int64", float: "float64", bool: "bool", str: "string", dict: "json", list: "json"}


@dataclass(frozen=True)
class Column:
    """A passed-through column: its name in the output, its name in the source, its type."""

    stored: str
    source: str
    type: str


@dataclass
class Kinds:
    """The types of what a column has held so far; nulls are of every type and not counted.

    `lowest` and `highest` bound its integers.
    """

    types: set[str] = field(default_factory=set)
    lowest: int = 0
    highest: int = 0

    def add(self, found: str, lowest: int = 0, highest: int = 0) -> None:
        self.types.add(found)
        self.lowest = min(self.lowest, lowest)
        self.highest = max(self.highest, highest)

    def type(self) -> str:
        """The narrowest type that holds every value; `string` where there was none."""
        return widest(self.types, self.lowest, self.highest)

    def type_beside(self, earlier: str) -> str:
        """The type in a generation behind one of `earlier`: that one, if it holds every value."""
        return earlier if holds(earlier, self.types, self.lowest, self.highest) else self.type()

    def look(self, values: Sequence[Any]) -> None:
        """Look at values of JSON."""
        types = set(map(type, values))
        types.discard(type(None))
        for found in types:
            self.types.add(_JSON_TYPES[found])
        if int in types:
            integers = (
                values if len(types) == 1 and None not in values else [v for v in values if type(v) is int]
            )
            self.add("int64", min(integers), max(integers))

    def type_merged_with(self, earlier: str) -> str:
        """The type that a merge gives the column beside shards in which it is `earlier`."""
        return widest({earlier, *self.types}, self.lowest, self.highest)

    @property
    def listed(self) -> str:
        """The types, two or more, as a person is told."""
        *others, last = sorted(self.types)
        return f"{', '.join(others)} and {last}"
